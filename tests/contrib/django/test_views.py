"""The images' URLs, through Django's own handling of requests, with and without middleware."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from django.test.utils import override_settings
from tests.contrib.django import project
from tests.engine.pictures import encoded, noise, quadrants

from lazypix import Library
from lazypix.http import Request

project.begin()

ALL = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    *project.MIDDLEWARE[1:],
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
PNG = encoded(quadrants(120, 80))


@pytest.fixture(scope="module")
def image(shop: Library) -> Any:
    return shop.add(PNG)


@pytest.fixture(autouse=True)
def empty() -> None:
    """The images stay for all tests."""


@pytest.fixture(params=["plain", "all"], ids=["no middleware", "all middleware"])
def client(request: pytest.FixtureRequest) -> Any:
    with override_settings(MIDDLEWARE=[] if request.param == "plain" else ALL):
        yield Client(enforce_csrf_checks=True)


def headers_of(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


def body_of(answer: Any) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


ASKED = [
    ("", {}),
    ("", {"accept": "image/webp"}),
    ("", {"accept-encoding": "gzip, br"}),
    ("", {"range": "bytes=0-9"}),
    ("", {"range": "bytes=999999-"}),
    ("", {"if-none-match": '"other"'}),
    ("", {"if-modified-since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    ("", {"if-match": '"other"'}),
    ("60x40,fit=cover/", {}),
    ("60by40/", {}),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("size", "headers"), ASKED)
def test_answers_are_those_of_every_face(
    client: Client, shop: Library, image: Any, size: str, headers: dict[str, str], method: str
) -> None:
    path = f"/image/{size}{image.ident}.auto"
    fields = {name.replace("-", "_"): value for name, value in headers.items() if name != "accept-encoding"}
    shop.delivery.answer(Request(method=method, path=path, **fields))  # so that both come from memory
    expected = shop.delivery.answer(Request(method=method, path=path, **fields))
    answer = client.generic(method, f"/media{path}", headers=headers)
    assert answer.status_code == expected.status
    assert body_of(answer) == (b"" if method == "HEAD" else expected.body)
    found, wanted = headers_of(answer), {n.decode(): v.decode() for n, v in expected.headers}
    assert {name: found.get(name) for name in wanted if name != "server-timing"} == {
        name: value for name, value in wanted.items() if name != "server-timing"
    }
    more = {"referrer-policy", "cross-origin-opener-policy", "x-frame-options", "x-content-type-options"}
    assert set(found) - set(wanted) <= more


def test_unchanged_images_are_not_sent_again(client: Client, image: Any) -> None:
    path = f"/media/image/30x20/{image.ident}.png"
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-length" not in headers_of(again)
    assert "content-type" not in headers_of(again)


def test_errors_are_the_envelope_of_every_face(client: Client) -> None:
    answer = client.get("/media/image/nothing.jpg")
    assert answer.status_code == 404
    assert answer.json()["status"] == "error"
    assert client.get("/media/image/").status_code in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_written_here(client: Client, image: Any, method: str) -> None:
    answer = client.generic(method, f"/media/image/{image.ident}.png")
    assert answer.status_code == 405
    assert "GET" in answer["Allow"]


def test_a_slash_is_not_appended(client: Client) -> None:
    assert client.get("/media/image/missing").status_code != 301


def test_a_raw_path_is_read_as_it_came(client: Client, image: Any) -> None:
    plain = client.get(f"/media/image/60x40,fit=cover/{image.ident}.png")
    quoted = client.get(
        f"/media/image/60x40%2Cfit%3Dcover/{image.ident}.png",
        REQUEST_URI=f"/media/image/60x40%2Cfit%3Dcover/{image.ident}.png",
    )
    assert body_of(quoted) == body_of(plain)


def large(library: Library) -> Any:
    return library.add(encoded(noise(900, 600)))


def test_a_large_original_comes_in_pieces_and_parts(client: Client, shop: Library) -> None:
    added = large(shop)
    original = shop.original(added.ident)
    assert len(original) > 1024 * 1024
    answer = client.get(f"/media/image/{added.ident}.png", headers={"accept-encoding": "gzip"})
    assert answer.streaming
    assert answer["Content-Length"] == str(len(original))
    assert body_of(answer) == original
    part = client.get(f"/media/image/{added.ident}.png", headers={"range": "bytes=1000000-1000099"})
    assert (part.status_code, body_of(part)) == (206, original[1_000_000:1_000_100])
    unread = client.get(f"/media/image/{added.ident}.png")
    unread.close()  # the file is closed: an open one would be warned of, and warnings are errors here
    assert client.head(f"/media/image/{added.ident}.png").content == b""


def test_an_asynchronous_server_gets_the_same(shop: Library, image: Any) -> None:
    added = large(shop)
    original = shop.original(added.ident)

    async def ask() -> None:
        client = AsyncClient()
        answer = await client.get(f"/media/image/{added.ident}.png")
        assert answer.is_async
        assert b"".join([piece async for piece in answer.streaming_content]) == original
        small = await client.get(f"/media/image/60x40,fit=cover/{image.ident}.auto", headers={"accept": "image/webp"})
        assert small["Content-Type"] == "image/webp"
        assert (await client.get("/media/image/60by40/a.png")).status_code == 400

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async_to_sync(ask)()


def test_the_widget_s_files_need_no_collectstatic(client: Client) -> None:
    for name, kind in (("image_input.js", "text/javascript"), ("image_input.css", "text/css")):
        answer = client.get(f"/media/lazypix-assets/{name}")
        assert answer.status_code == 200
        assert answer["Content-Type"] == kind
        assert body_of(answer)
    assert client.get("/media/lazypix-assets/urls.py").status_code == 404
    assert client.post("/media/lazypix-assets/image_input.js").status_code in (403, 405)


def test_a_prefix_of_the_application_stands_before_everything(shop: Library, image: Any) -> None:
    answer = Client().get(f"/media/image/60x40/{image.ident}.png", SCRIPT_NAME="/app")
    assert answer.status_code == 200
