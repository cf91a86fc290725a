"""Images of other servers in a project: while `remote_hosts` is set; else `/remote/` is the project's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.test.utils import override_settings
from django.urls import include, path, reverse
from tests.contrib.django import project
from tests.receiving import receiving
from tests.test_fetching import Site

from lazypix.contrib.django import configured

project.begin()

OWN = "the project's own"


def own(_: HttpRequest, path: str) -> HttpResponse:
    del path
    return HttpResponse(OWN)


urlpatterns = [path("media/", include("lazypix.contrib.django.urls")), path("media/remote/<path:path>", own)]


@pytest.fixture
def site() -> Iterator[Site]:
    with receiving() as receiver:
        started = Site(receiver)
        receiver.answer = started.answer
        yield started


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with override_settings(ROOT_URLCONF=__name__):
        yield {
            "data": tmp_path / "images", "jobs": "none", "outbound_allow": ["127.0.0.1"],
            "outbound_ports": [site.receiver.port], "fetch_deadline_s": 60,
        }  # fmt: skip


def test_addresses_of_the_library_lead_to_the_image(site: Site, settings: dict[str, Any]) -> None:
    with override_settings(LAZYPIX={**settings, "remote_hosts": ["127.0.0.1"]}):
        library = configured.library()
        address = library.remote_url(site.url, "30x20", format="webp")
        assert address.startswith("/media/remote/30x20.webp?url=http%3A%2F%2F127.0.0.1")
        answer = Client().get(address)
        assert (answer.status_code, answer["Content-Type"]) == (200, "image/webp")
        assert answer.content == library.variant(library.remote(site.url).ident, "30x20", format="webp").body
        assert Client().post(address)["Allow"] == "GET, HEAD, OPTIONS"
        assert Client().get("/media/remote/30x20.webp").json()["content"].startswith("The address names 0 URLs")


def test_while_they_are_not_shown_the_project_answers(site: Site, settings: dict[str, Any]) -> None:
    with override_settings(LAZYPIX=settings):
        address = configured.library().remote_url(site.url, "30x20", format="webp")
        assert Client().get(address).content.decode() == OWN
        assert reverse("lazypix:image", kwargs={"path": "image/a.jpg"}) == "/media/image/a.jpg"
    assert not site.receiver.requests
