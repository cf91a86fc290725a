"""Each web engine's answers are its framework's own, and say the same."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import django.http
import fastapi.responses
import flask
import pytest
import starlette.responses
import wheezy.http
from django.conf import settings as django_settings

from imagestorage.engines import WebEngine, web_engine
from lazypix.errors import SettingsError, StoreFull, UnknownImage
from lazypix.http import SAFE, Answer, error_answer

URL = "https://s3.example/bucket/101/200x100.jpg"
REDIRECT = Answer(status=301, headers=((b"location", URL.encode()), (b"cache-control", b"public, max-age=77")))
IMAGE = Answer(
    status=200,
    headers=(
        (b"content-type", b"image/jpeg"), (b"content-length", b"4"), (b"cache-control", b"public, max-age=77"), *SAFE,
    ),
    body=b"\xff\xd8\x00\xfe",
)  # fmt: skip


class Seen(NamedTuple):
    """What a response says, whatever framework it is of."""

    status: int
    headers: dict[str, str]
    body: bytes


def of_wheezy(response: Any) -> Seen:
    said: list[Any] = []
    body = b"".join(response(lambda *given: said.extend(given)))
    status, headers = said
    assert len({name.lower() for name, _ in headers}) == len(headers), headers
    return Seen(int(status.split()[0]), {name.lower(): value for name, value in headers}, body)


def of_django(response: Any) -> Seen:
    return Seen(response.status_code, {name.lower(): value for name, value in response.items()}, response.content)


def of_flask(response: Any) -> Seen:
    response.direct_passthrough = False
    return Seen(response.status_code, {name.lower(): value for name, value in response.headers}, response.get_data())


def of_starlette(response: Any) -> Seen:
    return Seen(response.status_code, dict(response.headers), response.body)


TYPES: dict[str, tuple[type, type, Callable[[Any], Seen]]] = {
    "wheezy": (wheezy.http.HTTPResponse, wheezy.http.HTTPResponse, of_wheezy),
    "django": (django.http.HttpResponse, django.http.HttpResponsePermanentRedirect, of_django),
    "flask": (flask.Response, flask.Response, of_flask),
    "fastapi": (fastapi.responses.Response, fastapi.responses.RedirectResponse, of_starlette),
    "starlette": (starlette.responses.Response, starlette.responses.RedirectResponse, of_starlette),
}


@pytest.fixture(params=TYPES)
def named(request: pytest.FixtureRequest) -> tuple[str, WebEngine]:
    if not django_settings.configured:
        django_settings.configure()
    return request.param, web_engine(request.param)


def test_an_image_is_a_response_of_the_framework(named: tuple[str, WebEngine]) -> None:
    name, engine = named
    kind, _, look = TYPES[name]
    response = engine.response(IMAGE)
    assert isinstance(response, kind)
    seen = look(response)
    assert (seen.status, seen.body) == (200, IMAGE.body)
    assert seen.headers["content-type"] == "image/jpeg"
    assert seen.headers["cache-control"] == "public, max-age=77"
    assert seen.headers["x-content-type-options"] == "nosniff"


def test_a_redirect_is_permanent_and_the_framework_s_own(named: tuple[str, WebEngine]) -> None:
    name, engine = named
    _, kind, look = TYPES[name]
    response = engine.permanent_redirect(REDIRECT)
    assert isinstance(response, kind)
    seen = look(response)
    assert (seen.status, seen.headers["location"]) == (301, URL)
    assert seen.headers["cache-control"] == "public, max-age=77"


def test_an_error_is_told_as_json_and_kept_by_nobody(named: tuple[str, WebEngine]) -> None:
    name, engine = named
    kind, _, look = TYPES[name]
    response = engine.response(error_answer(UnknownImage("There is no image 7")))
    assert isinstance(response, kind)
    seen = look(response)
    assert (seen.status, seen.headers["content-type"]) == (404, "application/json")
    assert seen.body == b'{"status": "error", "content": "There is no image 7"}'
    full = look(engine.response(error_answer(StoreFull("No space left"))))
    assert full.status == (503 if name == "wheezy" else 507)  # wheezy has no text for 507
    assert "no-store" in full.headers["cache-control"]


def test_an_engine_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match=r"webengine='bottle' is not accepted; accepted: wheezy, django, flask"):
        web_engine("bottle")


@pytest.mark.parametrize("name", TYPES)
def test_a_framework_that_is_not_installed_is_named_with_the_line_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"fastapi": "starlette"}.get(name, name)
    for module in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    extra = "fastapi" if package == "starlette" else name
    with pytest.raises(SettingsError, match=rf"pip install 'lazypix\[{extra}\]'"):
        web_engine(name)


def test_an_image_goes_through_a_wheezy_application() -> None:
    """As WSGI has it: the body's length is told once."""
    engine = web_engine("wheezy")
    application = wheezy.http.WSGIApplication(
        [lambda options: lambda request, following: engine.response(IMAGE)], {"ENCODING": "UTF-8"}
    )
    said: list[Any] = []
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "", "wsgi.input": io.BytesIO()}
    assert b"".join(application(environment, lambda *given: said.extend(given))) == IMAGE.body
    assert said[0] == "200 OK"
    assert [value for name, value in said[1] if name == "Content-Length"] == ["4"]
