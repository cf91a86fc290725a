"""Images of other servers over HTTP: as our own are, and still there when their server is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.outbound import tricks as play
from tests.outbound.tricks import CANARY, Tricks, playing
from tests.receiving import Receiver, receiving
from tests.server.running import Server, error_of, get_raw, rows, running
from tests.test_fetching import FIRST, SECOND, Site
from tests.waiting import until

HEADERS = ("content-type", "accept-ranges", "x-content-type-options", "content-security-policy", "vary")


@dataclass(slots=True, kw_only=True)
class Web:
    """A server of ours, and the other server whose images it shows."""

    server: Server
    site: Site
    stop_site: ExitStack

    def address(self, name: str, url: str = "") -> str:
        return f"/remote/{name}?url={quote(url or self.site.url, safe='')}"


@pytest.fixture(scope="module")
def tricks() -> Iterator[Tricks]:
    plays = {
        "/to-canary": play.redirect(f"http://{CANARY}:{{port}}/"),
        "/html": play.answer(b"<html>", "Content-Type: image/jpeg"),
        "/missing": play.answer(b"", status="404 Not Found"),
        "/drips": play.without_end(play.head("Content-Length: 9999"), b"x", slowly=True),
    }
    with playing(plays) as started:
        yield started


def allowing(*ports: int) -> dict[str, str]:
    """Return settings by which images of this machine are shown, from these ports."""
    return {
        "outbound_allow": "127.0.0.1",
        "outbound_ports": ",".join(str(port) for port in ports),
        "remote_hosts": "127.0.0.1, *.photos.example",
    }


@pytest.fixture(scope="module")
def web(tricks: Tricks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with ExitStack() as stack:
        receiver: Receiver = stack.enter_context(receiving())
        site = Site(receiver)
        receiver.answer = site.answer
        settings = {**allowing(receiver.port, tricks.port), "remote_ttl_s": "1", "cache_ttl_s": "0.1"}
        with running(tmp_path_factory.mktemp("remote") / "data", **settings) as server:
            yield Web(server=server, site=site, stop_site=stack)


def test_an_image_of_another_server_is_like_one_of_ours(web: Web) -> None:
    own = web.server.upload(FIRST)
    for name, accept in (("30x20.webp", "*/*"), ("30x20.auto", "image/avif,image/webp"), ("full.jpg", "*/*")):
        size, _, extension = name.partition(".")
        remote = web.server.get(web.address(name), accept=accept)
        ours = web.server.get(f"/image/{size}/{own}.{extension}", accept=accept)
        assert (remote.status_code, remote.content) == (200, ours.content)
        assert {h: remote.headers.get(h) for h in HEADERS} == {h: ours.headers.get(h) for h in HEADERS}
        assert remote.headers["cache-control"] == "public, max-age=1"
        unchanged = web.server.get(web.address(name), accept=accept, if_none_match=remote.headers["etag"])
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        part = web.server.get(web.address(name), accept=accept, range="bytes=0-9")
        assert (part.status_code, part.content) == (206, ours.content[:10])
        head = get_raw(web.server, web.address(name), f"Accept: {accept}", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(ours.content)))


def test_the_second_request_is_a_hit_and_the_source_is_asked_once(web: Web) -> None:
    url = f"{web.site.url}&once"
    before = len(web.site.receiver.requests)
    assert web.server.get(web.address("20x.jpg", url)).status_code == 200
    until(lambda: "hit" in web.server.get(web.address("20x.jpg", url)).headers["server-timing"])
    assert web.server.get(web.address("10x.jpg", url)).status_code == 200
    asked = [r for r in web.site.receiver.requests[before:] if "if-none-match" not in r.headers]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/to-canary", 400, "127.0.0.2 is not reached"),
        ("/html", 415, "Not an image"),
        ("/missing", 404, "status 404"),
    ],
)
def test_a_source_that_plays_tricks_is_told(web: Web, tricks: Tricks, path: str, status: int, said: str) -> None:
    before = rows(web.server.data)
    answer = web.server.get(web.address("20x.jpg", tricks.url(path)))
    assert answer.status_code == status
    assert said in error_of(answer.content)
    assert said in web.server.log.read_text()
    assert rows(web.server.data) == before
    assert tricks.canary == []


def test_a_source_that_drips_is_left_after_the_deadline(tricks: Tricks, tmp_path: Path) -> None:
    with running(tmp_path / "data", **allowing(tricks.port), fetch_deadline_s="1") as server:
        answer = server.get(f"/remote/20x.jpg?url={quote(tricks.url('/drips'), safe='')}")
        assert answer.status_code == 502
        assert "ReadTimeout" in error_of(answer.content)
        assert "ReadTimeout" in server.log.read_text()
        assert rows(server.data) == {}


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/remote/20x.jpg?url=https%3A%2F%2Fother.example%2F", 400, "accepted: 127.0.0.1, *.photos.example"),
        ("/remote/20x.jpg?url=http%3A%2F%2F127.0.0.1%3A22%2F", 400, "Port 22"),
        ("/remote/20x.jpg?url=file%3A%2F%2F%2Fetc%2Fpasswd", 400, "accepted: http://"),
        ("/remote/20x.jpg", 400, "accepted: /remote/"),
        ("/remote/99999x.jpg?url=http%3A%2F%2F127.0.0.1%2F", 400, "99999"),
        ("/remote/20x.exe?url=http%3A%2F%2F127.0.0.1%2F", 400, "Unknown extension"),
        ("/remote/nothing?url=http%3A%2F%2F127.0.0.1%2F", 400, "nothing"),
        ("/remote/a/b", 404, "accepted: /remote/"),
    ],
)
def test_a_wrong_address_is_named_before_anything_is_asked(web: Web, target: str, status: int, said: str) -> None:
    before = len(web.site.receiver.requests)
    answer = web.server.get(target)
    assert answer.status_code == status
    assert said in error_of(answer.content)
    assert len(web.site.receiver.requests) == before


def test_other_methods_are_refused(web: Web) -> None:
    with web.server.client() as client:
        answer = client.post(web.address("20x.jpg"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_without_named_hosts_there_is_nothing(server: Server) -> None:
    answer = server.get("/remote/20x.jpg?url=https%3A%2F%2Fphotos.example%2Fa.jpg")
    assert answer.status_code == 404
    assert "remote_hosts" in error_of(answer.content)


def test_a_source_that_changes_is_seen_and_one_that_is_away_is_still_shown(web: Web) -> None:
    target = web.address("full.jpg", f"{web.site.url}&changing")
    first = web.server.get(target)
    assert first.content == FIRST
    web.site.body, web.site.validators = SECOND, {"ETag": '"2"'}
    until(lambda: web.server.get(target).content == SECOND)
    second = web.server.get(target, if_none_match=first.headers["etag"])
    assert (second.status_code, second.content) == (200, SECOND)
    web.stop_site.close()
    logged = len(web.server.log.read_text())

    def still_shown() -> bool:
        answer = web.server.get(target)
        assert (answer.status_code, answer.content) == (200, SECOND)
        return "(ConnectError)" in web.server.log.read_text()[logged:]

    until(still_shown)
    assert web.server.get(target, if_none_match=second.headers["etag"]).status_code == 304
