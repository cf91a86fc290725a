"""Every example under its framework's own server: upload, the page, the thumbnails."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from html.parser import HTMLParser

import httpx
import pytest
from PIL import Image as Pillow
from tests.contrib.serving import COMMANDS, serving
from tests.engine.pictures import jpg, quadrants
from tests.waiting import WAIT_S


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start all examples at once, each with a library of its own."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        places = {name: tmp_path_factory.mktemp(name) / "data" for name in COMMANDS}
        started = {name: pool.submit(stack.enter_context, serving(name, data)) for name, data in places.items()}
        yield {name: each.result() for name, each in started.items()}


class Images(HTMLParser):
    """The `<img>` elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attrs))


def _upload(client: httpx.Client, name: str, image: bytes) -> httpx.Response:
    if name.startswith("wsgi"):
        return client.post("/", content=image)
    return client.post("/", files={"photo": ('a "rose".jpg', image)}, follow_redirects=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_uploaded_is_on_the_page(addresses: dict[str, str], name: str) -> None:
    with httpx.Client(base_url=addresses[name], timeout=WAIT_S) as client:
        answer = _upload(client, name, jpg(quadrants(640, 480)))
        assert answer.status_code in (200, 201), answer.text
        (found,) = Images(client.get("/").text).found
        assert (found["width"], found["height"], found["loading"]) == ("300", "200", "lazy")
        for target, size in (
            (found["src"], (300, 200)),
            ((found["srcset"] or "").split(", ")[1].split()[0], (600, 400)),
        ):
            assert target
            thumbnail = client.get(target, headers={"accept": "image/webp"})
            assert thumbnail.status_code == 200, thumbnail.text
            assert Pillow.open(io.BytesIO(thumbnail.content)).size == size


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_no_image_is_refused_with_a_reason(addresses: dict[str, str], name: str) -> None:
    with httpx.Client(base_url=addresses[name], timeout=WAIT_S) as client:
        answer = _upload(client, name, b"a letter")
    assert answer.status_code in (400, 415)
    assert "Not an image that can be read" in answer.text


def test_fastapi_documents_the_images(addresses: dict[str, str]) -> None:
    described = httpx.get(f"{addresses['fastapi']}/openapi.json", timeout=WAIT_S).json()["paths"]
    assert list(described["/image/{path}"]) == ["get"]
    assert "image/avif" in described["/image/{path}"]["get"]["responses"]["200"]["content"]
    remote = described["/remote/{path}"]["get"]
    assert {(each["in"], each["name"], each["required"]) for each in remote["parameters"]} == {
        ("path", "path", True),
        ("query", "url", True),
    }
    assert "image/avif" in remote["responses"]["200"]["content"]
    assert "502" in remote["responses"]


def test_an_application_gets_what_it_keeps(addresses: dict[str, str]) -> None:
    photo = {"photo": ("a.jpg", jpg(quadrants(64, 48)))}
    answer = httpx.post(f"{addresses['fastapi']}/photos", files=photo, timeout=WAIT_S)
    assert answer.status_code == 201
    assert (answer.json()["width"], answer.json()["height"]) == (64, 48)
