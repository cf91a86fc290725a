"""Images of other servers: fetched once by whoever wants them, asked for changes, and shown while their server is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.receiving import Received, receiving
from tests.test_fetching import FIRST, SECOND, Site, downloading_from
from tests.waiting import WAIT_S, until, wait

from lazypix import Library
from lazypix.catalog import Image
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import AddressRefused, BadRequest, LazypixError, NotFound, SourceMissing, Unreachable

LONG_S = 3600.0
ALWAYS_S = 0.0


@pytest.fixture
def site() -> Iterator[Site]:
    with receiving() as receiver:
        made = Site(receiver)
        receiver.answer = made.answer
        yield made


def opened(site: Site, folder: Path, ttl_s: float, *hosts: str, catalog: str | None = None) -> Library:
    return Library.open(
        folder, engine=ThreadEngine(1), catalog=catalog, downloader=downloading_from(site),
        remote_hosts=hosts or ("127.0.0.1",), remote_ttl_s=ttl_s,
    )  # fmt: skip


def test_a_source_is_fetched_once(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, LONG_S) as library:
        image = library.remote(site.url)
        assert library.original(image.ident) == FIRST
        site.body, site.validators = SECOND, {}
        assert library.remote(site.url) == image
        assert site.conditions == [None]
        assert library.remote(f"{site.url}&other").ident != image.ident
    with opened(site, tmp_path, LONG_S) as again:
        assert again.remote(site.url) == image
    assert len(site.receiver.requests) == 2


def test_what_was_added_by_its_url_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, LONG_S) as library:
        assert library.add_url(site.url) == library.remote(site.url)
    assert len(site.receiver.requests) == 1


def test_it_is_asked_for_changes_when_its_time_is_over(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, ALWAYS_S) as library:
        first = library.remote(site.url)
        assert library.remote(site.url) == first
        site.body, site.validators = SECOND, {"ETag": '"2"'}
        second = library.remote(site.url)
        assert library.original(second.ident) == SECOND
        assert library.original(first.ident) == FIRST
        assert library.remote(site.url) == second
        assert site.conditions == [None, '"1"', '"1"', '"2"']


@pytest.mark.parametrize("status", [500, 503, 403, 206])
def test_while_the_source_fails_what_was_there_is_shown(
    site: Site, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(site, tmp_path, ALWAYS_S) as library:
        image = library.remote(site.url)
        site.status = status
        with caplog.at_level(logging.WARNING, "lazypix"):
            assert library.remote(site.url) == image
            assert library.remote(site.url) == image
        assert f"status {status}" in caplog.text
        assert len(site.receiver.requests) == 2  # what failed is left alone for a while


def test_while_the_source_is_away_what_was_there_is_shown(tmp_path: Path) -> None:
    with receiving(port=free_port()) as receiver:
        site = Site(receiver)
        receiver.answer = site.answer
        library = opened(site, tmp_path, ALWAYS_S)
        image = library.remote(site.url)
    with library:
        assert library.remote(site.url) == image
        with pytest.raises(Unreachable, match="ConnectError"):
            library.remote(f"{site.url}&other")


def test_what_is_gone_at_its_source_is_not_shown(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, ALWAYS_S) as library:
        library.remote(site.url)
        site.status = 404
        for _ in range(2):
            with pytest.raises(SourceMissing, match="404"):
                library.remote(site.url)
        assert len(site.receiver.requests) == 2


def test_a_source_that_fails_is_left_alone_for_a_while(site: Site, tmp_path: Path) -> None:
    site.body = b"<html>"
    with opened(site, tmp_path, LONG_S) as library:
        for _ in range(3):
            with pytest.raises(LazypixError, match="Not an image"):
                library.remote(site.url)
        assert len(site.receiver.requests) == 1
        assert not library.catalog.numbers()


def test_a_deleted_image_is_fetched_again(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, LONG_S) as library:
        image = library.remote(site.url)
        library.delete(image.ident)
        assert library.remote(site.url).ident != image.ident
        assert len(site.receiver.requests) == 2


def test_only_named_hosts_are_shown(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, LONG_S, "*.photos.example", "photos.example") as library:
        for url in (site.url, "https://a.test/", "https://photos.example.a.test/"):
            with pytest.raises(AddressRefused, match=r"accepted: \*\.photos\.example, photos\.example"):
                library.remote(url)
        with pytest.raises(BadRequest, match="a login"):
            library.remote("https://name:secret@photos.example/")
        library.add_url(site.url)  # uploads may take it all the same
        with pytest.raises(AddressRefused):
            library.remote(site.url)
    assert len(site.receiver.requests) == 1
    with Library.open(tmp_path, engine=ThreadEngine(1)) as without, pytest.raises(NotFound, match="remote_hosts"):
        without.remote(site.url)


def test_a_named_host_must_not_redirect_to_another(site: Site, tmp_path: Path) -> None:
    def redirect(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"http://localhost:{site.receiver.port}/picture.jpg")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.receiver.answer = redirect
    with opened(site, tmp_path, LONG_S) as library, pytest.raises(AddressRefused, match=r"accepted: 127\.0\.0\.1"):
        library.remote(site.url)
    assert len(site.receiver.requests) == 1


class Gate:
    """Holds the source's answer back."""

    def __init__(self, site: Site) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self._site = site
        site.receiver.answer = self._answer

    def _answer(self, handler: BaseHTTPRequestHandler, request: Received) -> None:
        self.asked.set()
        wait(self.go)
        self._site.answer(handler, request)


def test_many_threads_of_several_machines_fetch_a_source_once(
    site: Site, tmp_path: Path, new_database: Callable[..., str]
) -> None:
    database, gate, ready = new_database(), Gate(site), threading.Barrier(9)

    def ask(library: Library) -> Image:
        ready.wait(60)
        return library.remote(site.url)

    with (
        opened(site, tmp_path / "a", LONG_S, catalog=database) as first,
        opened(site, tmp_path / "b", LONG_S, catalog=database) as second,
        ThreadPoolExecutor(8) as threads,
    ):
        asking = [threads.submit(ask, library) for library in (first, second) * 4]
        ready.wait(60)
        wait(gate.asked)
        gate.go.set()
        idents = {each.result(60).ident for each in asking}
    assert len(idents) == 1
    assert len(site.receiver.requests) == 1


def test_while_one_asks_for_changes_the_others_do_not_wait(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, ALWAYS_S) as library, ThreadPoolExecutor(1) as threads:
        image = library.remote(site.url)
        gate = Gate(site)
        asking = threads.submit(library.remote, site.url)
        wait(gate.asked)
        assert library.remote(site.url) == image
        assert not asking.done()
        gate.go.set()
        assert asking.result(60) == image
    assert len(site.receiver.requests) == 2


def test_who_waited_in_vain_does_not_ask_again(site: Site, tmp_path: Path) -> None:
    site.status = 500
    gate = Gate(site)
    with opened(site, tmp_path, LONG_S) as library, ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(library.remote, site.url) for _ in range(4)]
        wait(gate.asked)
        gate.go.set()
        until(lambda: all(each.done() for each in asking), WAIT_S)
        assert {type(each.exception()).__name__ for each in asking} == {"SourceFailed"}
    assert len(site.receiver.requests) == 1
