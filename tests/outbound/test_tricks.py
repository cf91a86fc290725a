"""Every trick that a URL, a name server or a web server can play on who downloads: refused, told, and logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.outbound import tricks as play
from tests.outbound.tricks import CANARY, Names, Tricks, playing
from tests.waiting import WAIT_S

from lazypix import Library
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    AddressRefused,
    BadRequest,
    BadUpload,
    LazypixError,
    SourceFailed,
    SourceMissing,
    TooLarge,
    Unreachable,
    UnsupportedImage,
)
from lazypix.outbound.downloading import Downloader
from lazypix.plan import Limits

JPEG = jpg(quadrants())
MOST_BYTES = 256 * 1024
HTML = b"<!doctype html><script>alert(1)</script>"

PLAYS: dict[str, play.Play] = {
    "/fine": play.answer(JPEG, "Content-Type: text/plain"),
    "/relative": play.redirect("fine"),
    "/three": play.redirect("/two", "301 Moved Permanently"),
    "/two": play.redirect("/one", "307 Temporary Redirect"),
    "/one": play.redirect("/fine", "308 Permanent Redirect"),
    # redirects
    "/to-canary": play.redirect(f"http://{CANARY}:{{port}}/"),
    "/to-canary-slashes": play.redirect(f"//{CANARY}:{{port}}/"),
    "/to-mapped": play.redirect(f"http://[::ffff:{CANARY}]:{{port}}/"),
    "/to-number": play.redirect("http://2130706434:{port}/"),
    "/to-metadata": play.redirect("http://169.254.169.254:{port}/latest/meta-data/"),
    "/to-named-metadata": play.redirect("http://metadata.test:{port}/computeMetadata/v1/"),
    "/to-file": play.redirect("file:///etc/passwd"),
    "/to-gopher": play.redirect(f"gopher://{CANARY}:{{port}}/_x"),
    "/to-port": play.redirect(f"http://{CANARY}:6379/"),
    "/to-login": play.redirect(f"http://name:hidden@{CANARY}:{{port}}/"),
    "/to-backslash": play.redirect(f"http://127.0.0.1:{{port}}\\@{CANARY}/"),
    "/to-no-punycode": play.redirect("http://xn--a:{port}/"),
    "/to-no-address": play.redirect("http://[v1.x]:{port}/"),
    "/to-nowhere": play.answer(b"", status="302 Found"),
    "/to-half": play.redirect("http://[::1/"),
    "/loop": play.redirect("/loop"),
    "/four": play.redirect("/three"),
    "/again": play.redirect("/fine"),
    # heads
    "/head-drips": play.without_end(b"HTTP/1.1 200 OK\r\nx: ", b"x", slowly=True),
    "/head-floods": play.without_end(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 8000 + b"\r\n"),
    "/early-hints": play.without_end(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", slowly=True),
    "/no-http": play.raw(b"220 mail.test ESMTP\r\n"),
    "/closed": play.raw(),
    "/two-lengths": play.raw(play.head("Content-Length: 5", "Content-Length: 6"), b"123456"),
    # bodies
    "/body-drips": play.without_end(play.head("Content-Length: 100000"), b"x", slowly=True),
    "/chunks-drip": play.without_end(play.head("Transfer-Encoding: chunked"), b"1\r\nx\r\n", slowly=True),
    "/endless": play.without_end(play.head(), bytes(65_536)),
    "/endless-chunks": play.without_end(play.head("Transfer-Encoding: chunked"), b"4000\r\n" + bytes(0x4000) + b"\r\n"),
    "/announces-much": play.without_end(play.head(f"Content-Length: {MOST_BYTES + 1}"), b"x"),
    "/announces-most": play.without_end(play.head(f"Content-Length: {'9' * 20}"), b"x"),
    "/announces-nonsense": play.without_end(play.head(f"Content-Length: {'9' * 5000}"), b"x"),
    "/short": play.announced(len(JPEG) + 1, JPEG),
    "/short-chunks": play.raw(play.head("Transfer-Encoding: chunked"), b"5\r\n12345\r\n"),
    "/garbled-chunks": play.raw(play.head("Transfer-Encoding: chunked"), b"zz\r\n" + JPEG),
    "/empty": play.answer(b""),
    "/html": play.answer(HTML, "Content-Type: image/jpeg"),
    "/cut": play.raw(play.head(), JPEG[: len(JPEG) // 2]),
    # compressed
    "/bomb": play.answer(play.bomb(64 << 20), "Content-Encoding: gzip", "Content-Type: image/jpeg"),
    "/large-gzip": play.answer(bytes(MOST_BYTES + 1), "Content-Encoding: gzip"),
    "/cut-gzip": play.answer(play.compressed(JPEG)[:-9], "Content-Encoding: gzip"),
    "/no-gzip": play.answer(JPEG, "Content-Encoding: gzip"),
    "/brotli": play.answer(JPEG, "Content-Encoding: br"),
    "/gzip-twice": play.answer(play.compressed(play.compressed(JPEG)), "Content-Encoding: gzip, gzip"),
    # statuses
    "/missing": play.answer(JPEG, status="404 Not Found"),
    "/gone": play.answer(JPEG, status="410 Gone"),
    "/broken": play.answer(JPEG, status="500 Internal Server Error"),
    "/forbidden": play.answer(JPEG, status="403 Forbidden"),
    "/part": play.answer(JPEG, status="206 Partial Content"),
    "/unchanged": play.raw(play.head(status="304 Not Modified")),
    "/choices": play.answer(JPEG, "Location: /fine", status="300 Multiple Choices"),
}  # fmt: skip


def names(port: int) -> Names:
    return Names(
        {
            "good.test": [["127.0.0.1"]],
            "bad.test": [[CANARY]],
            "metadata.test": [["169.254.169.254"]],
            "rebinding.test": [["127.0.0.1"], [CANARY]],
            "both.test": [["127.0.0.1", CANARY]],
            "mapped.test": [[f"::ffff:{CANARY}"]],
            "nat64.test": [["64:ff9b::7f00:2"]],
            "six-to-four.test": [["2002:7f00:2::1"]],
            "teredo.test": [["2001:0:7f00:2::1"]],
            "shared.test": [["100.100.100.200"]],
            "private.test": [["10.0.0.1"]],
            "multicast.test": [["224.0.0.1"]],
        }
    )


@pytest.fixture(scope="module")
def tricks() -> Iterator[Tricks]:
    with playing(PLAYS) as running:
        yield running


@contextmanager
def opened(folder: Path, tricks: Tricks, *, total_s: float = WAIT_S) -> Iterator[Library]:
    tricks.heads.clear()
    tricks.broken_off.clear()
    downloader = Downloader(tricks.rules, connect_s=WAIT_S, total_s=total_s, look_up=names(tricks.port))
    limits = Limits(max_bytes=MOST_BYTES)
    with Library.open(folder, engine=ThreadEngine(1), downloader=downloader, limits=limits) as library:
        yield library


def is_empty(library: Library, folder: Path) -> bool:
    files = [path for place in ("images", "incoming") for path in (folder / place).rglob("*") if path.is_file()]
    return not library.catalog.numbers() and not files


def check_refused(
    folder: Path, tricks: Tricks, caplog: pytest.LogCaptureFixture, url: str, error: type[LazypixError], said: str,
    *, total_s: float = WAIT_S,
) -> None:  # fmt: skip
    """A download is refused with a reason, the log has it too, nothing is stored, and the canary saw nobody."""
    url = url.replace("{port}", str(tricks.port))
    with opened(folder, tricks, total_s=total_s) as library, caplog.at_level(logging.WARNING, "lazypix"):
        with pytest.raises(error) as caught:
            library.add_url(url)
        assert type(caught.value) is error
        assert said in str(caught.value)
        assert is_empty(library, folder)
        assert library.catalog.sources.get(url) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()
    assert "hidden" not in str(caught.value) + record.getMessage()
    assert tricks.canary == []


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/to-canary", AddressRefused, "127.0.0.1 redirects: 127.0.0.2 is not reached: its address is loopback"),
        ("/to-canary-slashes", AddressRefused, "loopback"),
        ("/to-mapped", AddressRefused, "IPv4 inside IPv6"),
        ("/to-number", BadRequest, "http://…"),
        ("/to-metadata", AddressRefused, "link-local"),
        ("/to-named-metadata", AddressRefused, "metadata.test is not reached: its address is link-local"),
        ("/to-file", BadRequest, "file:///etc/passwd"),
        ("/to-gopher", BadRequest, "gopher://"),
        ("/to-port", AddressRefused, "Port 6379"),
        ("/to-login", BadRequest, "a login in a URL"),
        ("/to-backslash", BadRequest, "is not a URL"),
        ("/to-no-punycode", BadRequest, "127.0.0.1 redirects: 'xn--a' is no name of a host"),
        ("/to-no-address", BadRequest, "'v1.x' is no name of a host"),
        ("/to-nowhere", SourceFailed, "does not say where"),
        ("/to-half", BadRequest, "is not a URL"),
        ("/loop", SourceFailed, "more than 3 times"),
        ("/four", SourceFailed, "more than 3 times"),
        ("/head-floods", Unreachable, "RemoteProtocolError"),
        ("/no-http", Unreachable, "RemoteProtocolError"),
        ("/closed", Unreachable, "RemoteProtocolError"),
        ("/two-lengths", Unreachable, "RemoteProtocolError"),
        ("/endless", TooLarge, f"limit of {MOST_BYTES} bytes"),
        ("/endless-chunks", TooLarge, f"limit of {MOST_BYTES} bytes"),
        ("/announces-much", TooLarge, f"limit of {MOST_BYTES} bytes"),
        ("/announces-most", TooLarge, f"limit of {MOST_BYTES} bytes"),
        ("/announces-nonsense", Unreachable, "RemoteProtocolError"),
        ("/short", Unreachable, "RemoteProtocolError"),
        ("/short-chunks", Unreachable, "RemoteProtocolError"),
        ("/garbled-chunks", Unreachable, "RemoteProtocolError"),
        ("/empty", BadUpload, "0 bytes"),
        ("/html", UnsupportedImage, "Not an image"),
        ("/bomb", TooLarge, f"limit of {MOST_BYTES} bytes"),
        ("/large-gzip", TooLarge, f"limit of {MOST_BYTES} bytes"),
        ("/cut-gzip", SourceFailed, "ends in the middle"),
        ("/no-gzip", SourceFailed, "Content-Encoding: gzip"),
        ("/brotli", SourceFailed, "'br'; accepted: gzip"),
        ("/gzip-twice", SourceFailed, "'gzip, gzip'"),
        ("/missing", SourceMissing, "status 404"),
        ("/gone", SourceMissing, "status 410"),
        ("/broken", SourceFailed, "status 500"),
        ("/forbidden", SourceFailed, "status 403"),
        ("/part", SourceFailed, "status 206"),
        ("/unchanged", SourceFailed, "status 304"),
        ("/choices", SourceFailed, "status 300"),
    ],
)  # fmt: skip
def test_a_server_that_plays_tricks_is_not_believed(
    tricks: Tricks, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, error: type[LazypixError], said: str
) -> None:
    check_refused(tmp_path, tricks, caplog, tricks.url(f"{path}?token=hidden"), error, said)
    assert 1 <= len(tricks.heads) <= 4


@pytest.mark.parametrize("path", ["/head-drips", "/early-hints", "/body-drips", "/chunks-drip"])
def test_a_server_that_drips_is_not_waited_for(
    tricks: Tricks, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    # Not shorter: the request must have been sent by then, on a busy machine too.
    check_refused(tmp_path, tricks, caplog, tricks.url(path), Unreachable, "ReadTimeout", total_s=5)
    assert tricks.broken_off.wait(30)


@pytest.mark.parametrize("path", ["/endless", "/endless-chunks", "/announces-much", "/head-floods"])
def test_a_server_that_does_not_stop_is_cut_off(
    tricks: Tricks, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with opened(tmp_path, tricks) as library, pytest.raises(LazypixError):
        library.add_url(tricks.url(path))
    assert tricks.broken_off.wait(30)


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        (f"http://{CANARY}:{{port}}/", AddressRefused, "loopback"),
        ("http://bad.test:{port}/", AddressRefused, "bad.test is not reached: its address is loopback"),
        ("http://both.test:{port}/fine", AddressRefused, "loopback"),
        ("http://rebinding.test:{port}/again", AddressRefused, "rebinding.test is not reached: its address is loopback"),
        ("http://metadata.test:{port}/", AddressRefused, "link-local"),
        ("http://shared.test:{port}/", AddressRefused, "shared by a provider's customers"),
        ("http://private.test:{port}/", AddressRefused, "private"),
        ("http://multicast.test:{port}/", AddressRefused, "multicast"),
        ("http://mapped.test:{port}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://nat64.test:{port}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://six-to-four.test:{port}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://teredo.test:{port}/", AddressRefused, "IPv4 inside IPv6"),
        (f"http://[::ffff:{CANARY}]:{{port}}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://[::ffff:7f00:2]:{port}/", AddressRefused, "IPv4 inside IPv6"),
        (f"http://[::{CANARY}]:{{port}}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://[64:ff9b::7f00:2]:{port}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://[2002:7f00:2::]:{port}/", AddressRefused, "IPv4 inside IPv6"),
        ("http://[::1]:{port}/", AddressRefused, "loopback"),
        ("http://2130706434:{port}/", BadRequest, "http://…"),
        ("http://0x7f000002:{port}/", BadRequest, "http://…"),
        ("http://0177.0.0.2:{port}/", BadRequest, "http://…"),
        ("http://127.2:{port}/", BadRequest, "http://…"),
        ("http://good.test/fine", AddressRefused, "Port 80"),
        ("file:///etc/passwd", BadRequest, "http://…"),
        ("http://name:hidden@good.test:{port}/fine", BadRequest, "a login in a URL"),
        ("ftp://name:hidden@good.test/?hidden", BadRequest, "http://…"),
    ],
)  # fmt: skip
def test_an_address_that_is_forbidden_is_not_connected_to(
    tricks: Tricks, tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, error: type[LazypixError], said: str
) -> None:
    check_refused(tmp_path, tricks, caplog, url, error, said)
    assert tricks.targets == (["/again"] if "rebinding" in url else [])


@pytest.mark.parametrize("path", ["/fine", "/relative", "/one", "/three"])
def test_what_is_an_image_is_taken_whatever_it_is_called(tricks: Tricks, tmp_path: Path, path: str) -> None:
    with opened(tmp_path, tricks) as library:
        image = library.add_url(tricks.url(path, "good.test"))
        assert library.original(image.ident) == JPEG
        assert image.filename == "fine.jpg"
        assert tricks.targets[-1] == "/fine"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_a_server_that_compresses_unasked_is_understood(tricks: Tricks, tmp_path: Path, encoding: str) -> None:
    packed = play.compressed(JPEG, encoding)
    tricks.plays["/packed"] = play.answer(packed, f"Content-Encoding: {encoding}")
    with opened(tmp_path, tricks) as library:
        assert library.original(library.add_url(tricks.url("/packed")).ident) == JPEG
    assert "accept-encoding: identity\r\n" in tricks.heads[0].lower()


def test_what_comes_after_the_announced_length_is_nobodys(tricks: Tricks, tmp_path: Path) -> None:
    trailing = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    tricks.plays["/trailing"] = play.raw(play.head(f"Content-Length: {len(JPEG)}"), JPEG + trailing)
    with opened(tmp_path, tricks) as library:
        assert library.original(library.add_url(tricks.url("/trailing")).ident) == JPEG


def test_a_body_that_is_cut_off_without_a_length_is_no_image(tricks: Tricks, tmp_path: Path) -> None:
    with opened(tmp_path, tricks) as library:
        with pytest.raises(LazypixError) as caught:
            library.add_url(tricks.url("/cut"))
        assert caught.value.status == 422
        assert is_empty(library, tmp_path)


def test_only_what_a_request_needs_is_told(tricks: Tricks, tmp_path: Path) -> None:
    with opened(tmp_path, tricks) as library:
        library.add_url(tricks.url("/one#fragment", "good.test"))
    assert tricks.targets == ["/one", "/fine"]
    for head in tricks.heads:
        names_sent = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names_sent <= {"host", "accept", "accept-encoding", "connection", "user-agent"}
