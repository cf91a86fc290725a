"""Uploads by URL over a real server and its HTTP interface, from a server that plays tricks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.engine.pictures import jpg, quadrants
from tests.outbound import tricks as play
from tests.outbound.tricks import CANARY, Tricks, playing
from tests.receiving import Receiver, receiving
from tests.server.running import Server, error_of, nothing_stored, running

JPEG = jpg(quadrants())


@pytest.fixture(scope="module")
def tricks() -> Iterator[Tricks]:
    plays = {
        "/photo.png": play.answer(JPEG, 'Content-Disposition: attachment; filename="../Café 1.png"'),
        "/to-canary": play.redirect(f"http://{CANARY}:{{port}}/"),
        "/html": play.answer(b"<html>", "Content-Type: image/jpeg"),
        "/missing": play.answer(b"", status="404 Not Found"),
        "/broken": play.answer(b"", status="500 Internal Server Error"),
        "/drips": play.without_end(play.head("Content-Length: 9999"), b"x", slowly=True),
        "/bomb": play.answer(play.bomb(8 << 20), "Content-Encoding: gzip"),
    }
    with playing(plays) as started:
        yield started


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def server(tricks: Tricks, hooks: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"fetch_deny": "denied.example, *.denied.example", "max_bytes": str(1 << 20)}
    allowed = allowing(tricks.port, hooks.port, 443)
    with running(tmp_path_factory.mktemp("fetching") / "data", **settings, **allowed) as started:
        yield started


def allowing(*ports: int) -> dict[str, str]:
    """Return settings by which this machine may be downloaded from, at these ports."""
    return {"outbound_allow": "127.0.0.1", "outbound_ports": ",".join(str(port) for port in ports)}


def upload(server: Server, url: str, **fields: str) -> httpx.Response:
    with server.client() as client:
        return client.post("/upload", data={"url": url, **fields})


def test_an_image_is_uploaded_by_its_url(server: Server, tricks: Tricks) -> None:
    answer = upload(server, tricks.url("/photo.png"), ident="by-url", sizes="30x20", metadata='{"album": "x"}')
    assert answer.status_code == 201
    assert answer.json()["content"] == {"ident": "by-url", "sizes": [["30", "20"]]}
    facts = server.get("/info/by-url").json()["content"]
    assert (facts["filename"], facts["metadata"]) == ("Caf\u00e9 1.jpg", {"album": "x"})
    assert server.get("/image/by-url.jpg").content == JPEG
    assert server.picture("/image/by-url.jpg?width=30&height=20").size == (30, 20)
    assert upload(server, tricks.url("/photo.png"), ident="by-url").status_code == 409


@pytest.mark.parametrize(
    ("path", "status", "code", "said"),
    [
        ("/to-canary", 400, "address_refused", "127.0.0.1 redirects: 127.0.0.2 is not reached: its address is loopback"),
        ("/html", 415, "unsupported_image", "accepted:"),
        ("/missing", 404, "source_missing", "answered with status 404"),
        ("/broken", 502, "source_failed", "answered with status 500"),
        ("/bomb", 413, "too_large", "limit of 1048576 bytes"),
    ],
)  # fmt: skip
def test_a_source_that_is_no_image_is_refused(
    server: Server, tricks: Tricks, path: str, status: int, code: str, said: str
) -> None:
    check_refused(server, tricks, path, status, code, said)


def test_a_source_that_drips_is_left_after_the_deadline(tricks: Tricks, tmp_path: Path) -> None:
    with running(tmp_path / "data", **allowing(tricks.port), fetch_deadline_s="1") as impatient:
        check_refused(impatient, tricks, "/drips", 502, "unreachable", "ReadTimeout")


def check_refused(server: Server, tricks: Tricks, path: str, status: int, code: str, said: str) -> None:
    with nothing_stored(server.data):
        answer = upload(server, tricks.url(f"{path}?token=hidden"))
    assert (answer.status_code, answer.headers["lazypix-error"]) == (status, code)
    assert said in error_of(answer.content)
    assert said in server.log.read_text()
    assert "hidden" not in server.log.read_text()
    assert tricks.canary == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://169.254.169.254:443/latest/meta-data/", "link-local"),
        ("https://[::ffff:127.0.0.1]/", "IPv4 inside IPv6"),
        ("https://www.denied.example/a.jpg", "denied by the settings"),
        ("http://127.0.0.1:22/", "Port 22"),
        ("file:///etc/passwd", "http://…"),
        ("https://2130706433/", "http://…"),
        ("https://xn--a/", "'xn--a' is no name of a host"),
    ],
)
def test_an_address_that_is_not_reached_is_refused(server: Server, tricks: Tricks, url: str, said: str) -> None:
    with nothing_stored(server.data):
        answer = upload(server, url)
    assert answer.status_code == 400
    assert said in error_of(answer.content)
    assert tricks.canary == []


def test_the_form_has_either_an_image_or_a_url(server: Server, tricks: Tricks) -> None:
    url = tricks.url("/photo.png")
    with server.client() as client, nothing_stored(server.data):
        both = client.post("/upload", data={"url": url}, files={"image": ("a.jpg", JPEG)})
        neither = client.post("/upload", data={"ident": "a"})
        malformed = client.post("/upload", data={"url": url, "ident": "a b"})
    assert [answer.status_code for answer in (both, neither, malformed)] == [400, 400, 400]
    assert "one of them" in error_of(both.content)
    assert "the field url" in error_of(neither.content)


def test_a_form_of_a_browser_has_an_empty_file_field(server: Server, tricks: Tricks) -> None:
    with server.client() as client:
        answer = client.post("/upload", data={"url": tricks.url("/photo.png")}, files={"image": ("", b"")})
    assert answer.status_code == 201, answer.text


def test_a_callback_is_told_of_an_upload_by_url(server: Server, tricks: Tricks, hooks: Receiver) -> None:
    answer = upload(server, tricks.url("/photo.png"), callback=hooks.url, sync="false")
    assert answer.status_code == 201, answer.text
    (told,) = hooks.wait_for(1)
    assert answer.json()["content"]["ident"].encode() in told.body
