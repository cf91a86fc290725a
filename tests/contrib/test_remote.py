"""Images of other servers in applications: where they are wanted, below their prefix; else `/remote/` is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route
from tests.receiving import receiving
from tests.test_fetching import Site
from wheezy.http import HTTPResponse, WSGIApplication
from wheezy.routing import url
from wheezy.web.middleware import bootstrap_defaults, path_routing_middleware_factory

from lazypix import Library
from lazypix.contrib import fastapi, starlette, wheezy
from lazypix.contrib.flask import Lazypix
from lazypix.contrib.opening import open_configured

OWN = "the application's own"
Get = Callable[[str], httpx.Response]


@pytest.fixture
def site() -> Iterator[Site]:
    with receiving() as receiver:
        started = Site(receiver)
        receiver.answer = started.answer
        yield started


@contextmanager
def _flask(settings: dict[str, Any], *, remote: bool) -> Iterator[tuple[Library, Get]]:
    app = Flask("gallery")
    app.config.update(LAZYPIX={**settings, "remote_hosts": settings["remote_hosts"] if remote else ()})
    app.config["LAZYPIX_URL_PREFIX"] = "/media"
    app.add_url_rule("/media/remote/<path:path>", view_func=lambda path: OWN, endpoint="own")
    extension = Lazypix(app)
    with app.app_context(), app.test_request_context():
        assert app.url_for("lazypix.image", path="a.jpg") == "/media/image/a.jpg"
        yield extension.library, lambda target: _sync(app, target)
        extension.close()


@contextmanager
def _starlette(settings: dict[str, Any], *, remote: bool) -> Iterator[tuple[Library, Get]]:
    def own(_: Request) -> PlainTextResponse:
        return PlainTextResponse(OWN)

    images = starlette.Images(lambda: open_configured(**settings, base_url="/media"), remote=remote)
    app = Starlette(routes=[Mount("/media", routes=[*images.routes(), Route("/remote/{path:path}", own)])])
    yield images.library(), lambda target: _async(app, target)
    images.library.close()


@contextmanager
def _fastapi(settings: dict[str, Any], *, remote: bool) -> Iterator[tuple[Library, Get]]:
    images = fastapi.Images(lambda: open_configured(**settings, base_url="/media"), remote=remote)
    app = FastAPI()
    images.install(app, prefix="/media")
    app.get("/media/remote/{path:path}", response_class=PlainTextResponse, include_in_schema=False)(lambda: OWN)
    assert ("/media/remote/{path}" in app.openapi()["paths"]) is remote
    yield images.library(), lambda target: _async(app, target)
    images.library.close()


@contextmanager
def _wheezy(settings: dict[str, Any], *, remote: bool) -> Iterator[tuple[Library, Get]]:
    def own(_: Any) -> HTTPResponse:
        response = HTTPResponse()
        response.write(OWN)
        return response

    images = wheezy.Images(lambda: open_configured(**settings, base_url="/media"), prefix="/media", remote=remote)
    urls = [url("media/", images.urls()), url("media/remote/{path:any}", own, name="own")]
    app = WSGIApplication(
        [bootstrap_defaults(urls), path_routing_middleware_factory], {"render_template": None, "ticket": None}
    )
    yield images.library(), lambda target: _sync(app, target)
    images.library.close()


def _sync(app: Any, target: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://gallery") as client:
        return client.get(target)


def _async(app: Any, target: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gallery") as client:
            return await client.get(target)

    return asyncio.run(ask())


FRAMEWORKS = {"flask": _flask, "starlette": _starlette, "fastapi": _fastapi, "wheezy": _wheezy}


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": tmp_path / "data", "jobs": "none", "remote_hosts": ["127.0.0.1"], "outbound_allow": ["127.0.0.1"],
        "outbound_ports": [site.receiver.port], "fetch_deadline_s": 60,
    }  # fmt: skip


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_addresses_of_the_library_lead_to_the_image(site: Site, settings: dict[str, Any], name: str) -> None:
    with FRAMEWORKS[name](settings, remote=True) as (library, get):
        address = library.remote_url(site.url, "30x20", format="webp")
        assert address.startswith("/media/remote/30x20.webp?url=http%3A%2F%2F127.0.0.1")
        answer = get(address)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        assert answer.content == library.variant(library.remote(site.url).ident, "30x20", format="webp").body
        assert get("/media/remote/30x20.webp").json()["content"].startswith("The address names 0 URLs")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_where_they_are_not_wanted_the_application_answers(site: Site, settings: dict[str, Any], name: str) -> None:
    with ExitStack() as stack:
        library, get = stack.enter_context(FRAMEWORKS[name](settings, remote=False))
        answer = get(library.remote_url(site.url, "30x20", format="webp"))
        assert (answer.status_code, answer.text) == (200, OWN)
    assert not site.receiver.requests
