"""Originals by URL: how they are named, and asked for again when their sources change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.pictures import jpg, quadrants
from tests.receiving import Received, Receiver, receiving
from tests.server.running import clean_environment
from tests.waiting import WAIT_S

from lazypix import Library
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import SourceMissing, UnknownImage, Unreachable
from lazypix.filenames import downloaded_name
from lazypix.formats import by_name
from lazypix.outbound.downloading import Downloader
from lazypix.outbound.rules import Rules

FIRST, SECOND = jpg(quadrants(60, 40)), jpg(quadrants(40, 60))


@dataclass(slots=True)
class Site:
    """A web server with one picture, which changes, and goes away."""

    receiver: Receiver
    body: bytes = FIRST
    validators: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    status: int = 200

    @property
    def url(self) -> str:
        return f"{self.receiver.url}/picture.jpg?size=large"

    @property
    def conditions(self) -> list[str | None]:
        """What each request asked with."""
        headers = [request.headers for request in self.receiver.requests]
        return [each.get("if-none-match") or each.get("if-modified-since") for each in headers]

    def answer(self, handler: BaseHTTPRequestHandler, request: Received) -> None:
        known = {request.headers.get("if-none-match"), request.headers.get("if-modified-since")} - {None}
        unchanged = self.status == 200 and bool(known & set(self.validators.values()))
        body = b"" if unchanged else self.body
        handler.send_response(304 if unchanged else self.status)
        for name, value in self.validators.items():
            handler.send_header(name, value)
        if not unchanged:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def downloading_from(site: Site) -> Downloader:
    """Return a downloader that reaches the site, and gives it time."""
    rules = Rules.of(["127.0.0.1"], [site.receiver.port])
    return Downloader(rules, connect_s=WAIT_S, total_s=WAIT_S)


@pytest.fixture
def site() -> Iterator[Site]:
    with receiving() as receiver:
        made = Site(receiver)
        receiver.answer = made.answer
        yield made


@pytest.fixture
def library(site: Site, tmp_path: Path) -> Iterator[Library]:
    downloader = downloading_from(site)
    with Library.open(tmp_path / "library", engine=ThreadEngine(1), downloader=downloader) as opened:
        yield opened


def test_an_original_by_url_is_one_like_any_other(library: Library, site: Site) -> None:
    image = library.add_url(site.url, ident="mine", filename="own.jpg", metadata={"a": 1})
    assert (image.ident, image.filename, image.metadata) == ("mine", "own.jpg", {"a": 1})
    assert library.get("mine") == image
    assert library.original("mine") == FIRST
    again = library.add_url(site.url)
    assert (again.filename, again.sha256) == ("picture.jpg", image.sha256)
    source = library.catalog.sources.get(site.url)
    assert source is not None
    assert (source.ident, source.etag, source.landed) == (again.ident, '"1"', site.url)


@pytest.mark.parametrize("validators", [{"ETag": 'W/"1"'}, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_a_source_that_has_not_changed_is_the_same_image(
    library: Library, site: Site, validators: dict[str, str]
) -> None:
    site.validators = validators
    image = library.add_url(site.url)
    before = library.catalog.sources.get(site.url)
    assert library.refresh(site.url) == image
    assert site.conditions == [None, *validators.values()]
    after = library.catalog.sources.get(site.url)
    assert before is not None
    assert after is not None
    assert after.checked > before.checked


def test_a_source_that_changed_is_a_new_image_with_the_same_metadata(library: Library, site: Site) -> None:
    old = library.add_url(site.url, ident="old", metadata={"album": "x"})
    site.body, site.validators = SECOND, {"ETag": '"2"'}
    new = library.refresh(site.url)
    assert new.ident != "old"
    assert (new.metadata, new.width, new.filename) == ({"album": "x"}, 40, "picture.jpg")
    assert library.original("old") == FIRST
    assert library.get("old") == old
    assert library.refresh(site.url) == new
    assert site.conditions == [None, '"1"', '"2"']


def test_what_a_key_downloaded_stays_that_keys(library: Library, site: Site) -> None:
    key, _ = library.catalog.keys.make("some", ["upload"])
    library.add_url(site.url, owner=key.id)
    site.body, site.validators = SECOND, {}
    assert library.get(library.refresh(site.url).ident).owner == key.id


def test_the_same_bytes_are_the_same_image_without_any_validators(library: Library, site: Site) -> None:
    site.validators = {}
    image = library.add_url(site.url)
    assert library.refresh(site.url) == image
    site.validators = {"ETag": '"new"'}
    assert library.refresh(site.url) == image
    assert library.refresh(site.url) == image
    assert site.conditions == [None, None, None, '"new"']


def test_validators_are_sent_only_to_the_url_that_gave_them(library: Library, site: Site) -> None:
    url = f"{site.receiver.url}/moving"
    targets = ["/a", "/a", "/b"]

    def answer(handler: BaseHTTPRequestHandler, request: Received) -> None:
        if request.target != "/moving":
            site.body = FIRST if request.target == "/a" else SECOND
            site.answer(handler, request)
            return
        handler.send_response(302)
        handler.send_header("Location", targets.pop(0))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.receiver.answer = answer
    image = library.add_url(url)
    assert library.refresh(url) == image
    assert library.refresh(url).ident != image.ident  # the same tag at another address says nothing
    assert [request.target for request in site.receiver.requests] == [
        "/moving",
        "/a",
        "/moving",
        "/a",
        "/moving",
        "/b",
    ]
    assert site.conditions == [None, None, None, '"1"', None, None]


def test_a_source_that_fails_is_told_and_nothing_changes(library: Library, site: Site) -> None:
    image = library.add_url(site.url)
    site.status = 410
    with pytest.raises(SourceMissing, match="410"):
        library.refresh(site.url)
    site.status = 503
    with pytest.raises(Unreachable, match="503"):
        library.refresh(site.url)
    site.status = 200
    assert library.refresh(site.url) == image


def test_a_deleted_image_is_downloaded_anew(library: Library, site: Site) -> None:
    with pytest.raises(UnknownImage):
        library.refresh(site.url)
    image = library.add_url(site.url)
    library.delete(image.ident)
    assert library.catalog.sources.get(site.url) is None
    with pytest.raises(UnknownImage):
        library.refresh(site.url)


def test_an_image_in_the_trash_is_downloaded_anew(site: Site, tmp_path: Path) -> None:
    downloader = downloading_from(site)
    with Library.open(tmp_path / "library", engine=ThreadEngine(1), downloader=downloader, undelete_s=60) as library:
        image = library.add_url(site.url)
        library.delete(image.ident)
        assert library.refresh(site.url).ident != image.ident
        assert site.conditions == [None, None]


def test_the_command_adds_urls(site: Site, tmp_path: Path) -> None:
    settings = {"outbound_allow": "127.0.0.1", "outbound_ports": str(site.receiver.port)}
    settings["fetch_deadline_s"] = "60"
    command = [sys.executable, "-m", "lazypix", "add", site.url, f"{site.receiver.url}/a.jpg", "http://127.0.0.1:22/"]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(settings), capture_output=True, timeout=180, check=False
    )
    assert done.returncode == 1
    assert done.stdout.decode().count(site.receiver.url) == 2
    assert b"Port 22" in done.stderr
    assert b"1 of 3 files were not added" in done.stderr


@pytest.mark.parametrize(
    ("url", "disposition", "found", "name"),
    [
        ("http://a.test/b/c.jpg?d=e.png", "", "jpg", "c.jpg"),
        ("http://a.test/b/c.JPEG", "", "jpg", "c.JPEG"),
        ("http://a.test/b/c.png", "", "webp", "c.webp"),
        ("http://a.test/b/c", "", "png", "c.png"),
        ("http://a.test/", "", "png", None),
        ("http://a.test/%C3%A9%2F..%2Fx.png", "", "png", "x.png"),
        ("http://a.test/x.png", 'attachment; filename="y.png"', "png", "y.png"),
        ("http://a.test/x.png", "attachment; filename*=UTF-8''%e2%82%ac.png", "png", "\u20ac.png"),
        ("http://a.test/x.png", 'attachment; filename="..\\\\..\\\\y.exe"', "png", "y.png"),
        ("http://a.test/x.png", "attachment", "png", "x.png"),
        ("http://a.test/x.gif", "", None, "x.gif"),
        ("http://a.test/x.png", "attachment; filename*=punycode''%ff", "png", "x.png"),
        ("http://a.test/x.png", "attachment; filename*=idna''xn--%ff", "png", "x.png"),
        ("http://a.test/x.png", ";" * 90_000 + "filename=y.png", "png", "x.png"),
    ],
)
def test_a_download_is_named_by_what_it_is(url: str, disposition: str, found: str | None, name: str | None) -> None:
    assert downloaded_name(url, disposition, by_name(found) if found else None) == name


@given(
    st.text(st.characters(codec="latin-1")),
    st.sampled_from(["", "attachment; ", "inline; filename*=", 'x; filename="']),
)
def test_no_header_breaks_the_naming(text: str, beginning: str) -> None:
    name = downloaded_name("http://a.test/x.png", beginning + text, by_name("png"))
    assert name is not None
    assert "/" not in name
    assert len(name) <= 255
