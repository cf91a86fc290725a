"""Frameworks with the images below a path of their own, and what an application may do around them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from flask import Flask, abort, render_template_string
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.engine.pictures import jpg, quadrants
from wheezy.http import WSGIApplication
from wheezy.routing import url
from wheezy.web.middleware import bootstrap_defaults, path_routing_middleware_factory

from lazypix import Library
from lazypix.contrib import fastapi, wheezy
from lazypix.contrib.flask import Lazypix
from lazypix.errors import TooLarge

TARGET = "/media/image/40x30,fit=cover/photo.webp"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Library.open(tmp_path / "data") as library:
        library.add(jpg(quadrants()), ident="photo")
    return tmp_path / "data"


@pytest.fixture
def flask(data: Path) -> Iterator[Flask]:
    app = Flask("gallery")
    app.config.update(LAZYPIX={"data": data}, LAZYPIX_URL_PREFIX="/media", LAZYPIX_JOBS="none")
    lazypix = Lazypix()
    lazypix.init_app(app)
    with app.app_context():
        yield app
        lazypix.close()


def test_flask_serves_below_its_prefix_and_templates_know_it(flask: Flask) -> None:
    library: Library = flask.extensions["lazypix"]()
    page = render_template_string("{{ image_tag(photo, '40x30,fit=cover', alt='<') }}", photo=library.get("photo"))
    assert 'src="/media/image/40x30,fit=cover/photo.auto"' in page
    assert 'alt="&lt;"' in page
    answer = flask.test_client().get(TARGET)
    assert (answer.status_code, answer.content_type) == (200, "image/webp")
    assert flask.test_client().get("/image/40x/photo.webp").status_code == 404


def test_flask_sees_requests_before_and_after(flask: Flask) -> None:
    flask.before_request(lambda: abort(403))
    flask.after_request(lambda response: response.headers.set("x-after", "1") or response)
    answer = flask.test_client().get(TARGET)
    assert (answer.status_code, answer.headers["x-after"]) == (403, "1")


def test_flask_answers_what_lazypix_refuses(flask: Flask) -> None:
    @flask.get("/refused")
    def refused() -> str:
        raise TooLarge("too many pixels")

    answer = flask.test_client().get("/refused")
    assert (answer.status_code, answer.json) == (413, {"status": "error", "content": "too many pixels"})


def test_flask_has_the_commands(flask: Flask) -> None:
    done = flask.test_cli_runner().invoke(args=["lazypix", "--version"])
    assert (done.exit_code, done.output[:8]) == (0, "lazypix ")


def test_flasks_commands_know_the_prefix_and_settings_that_are_objects(data: Path) -> None:
    app = Flask("presets")
    app.config.update(LAZYPIX_DATA=data, LAZYPIX_URL_PREFIX="/media", LAZYPIX_PRESETS={"thumb": "40x30,fit=cover"})
    Lazypix(app)
    done = app.test_cli_runner().invoke(args=["lazypix", "url", "photo", "@thumb"])
    assert (done.exit_code, done.output.strip()) == (0, "/media/image/40x30,fit=cover/photo.auto")


def _open(data: Path) -> Any:
    return lambda: Library.open(data, base_url="/media")


def test_fastapi_serves_below_a_prefix_whom_it_lets_in(data: Path) -> None:
    def logged_in(key: str = "") -> None:
        if key != "letmein":
            raise HTTPException(401)

    images = fastapi.Images(_open(data))
    app = FastAPI()
    app.include_router(images.router(), prefix="/media", dependencies=[Depends(logged_in)])
    assert _ask(app, "GET", TARGET).status_code == 401
    answer = _ask(app, "GET", "/media/image/photo.webp?width=40&key=letmein")
    assert answer.json()["content"].startswith("Unknown option 'key'")  # it came to the library
    assert images.library().url("photo", "40x") == "/media/image/40x/photo.auto"
    images.library.close()


def _ask(app: Any, method: str, target: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gallery") as client:
            return await client.request(method, target)

    return asyncio.run(ask())


def test_a_library_s_own_application_may_be_mounted(data: Path) -> None:
    with Library.open(data) as library:
        app = Starlette(routes=[Mount("/media", library.asgi)])
        answer = _ask(app, "GET", TARGET)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        assert _ask(app, "PUT", TARGET).headers["allow"] == "GET, HEAD, OPTIONS"


def test_wheezy_serves_below_its_prefix(data: Path) -> None:
    images = wheezy.Images(_open(data), prefix="/media")
    app = WSGIApplication(
        [bootstrap_defaults([url("media/", images.urls())]), path_routing_middleware_factory],
        {"render_template": None, "ticket": None},
    )
    sent: list[str] = []
    environ = {"PATH_INFO": TARGET, "SCRIPT_NAME": "", "QUERY_STRING": "", "REQUEST_METHOD": "GET"}
    body = b"".join(app(environ, lambda status, headers: sent.append(status)))
    images.library.close()
    assert (sent, body[8:12]) == (["200 OK"], b"WEBP")
