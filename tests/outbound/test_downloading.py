"""Downloads: where redirects may lead, how long they may take together, and what is asked with."""

from __future__ import annotations

import socket
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests import programs
from tests.outbound import tricks as play
from tests.outbound.tricks import Names, Tricks, playing
from tests.receiving import Received, receiving
from tests.waiting import WAIT_S

from lazypix.errors import AddressRefused, SourceFailed, Unreachable
from lazypix.outbound.downloading import Downloader, Validators
from lazypix.outbound.rules import Rules


def late(location: str, seconds: float) -> play.Play:
    """Redirect after a while."""

    def answer(tricks: Tricks, connection: socket.socket, target: str) -> None:
        tricks.over.wait(seconds)
        play.redirect(location)(tricks, connection, target)

    return answer


def downloader_for(tricks: Tricks, *, total_s: float = WAIT_S) -> Downloader:
    """Return a downloader that reaches the server, and looks up nothing."""
    return Downloader(tricks.rules, connect_s=WAIT_S, total_s=total_s, look_up=Names({}))


def test_one_deadline_is_for_all_redirects() -> None:
    plays = {"/a": late("/b", 0.4), "/b": late("/c", 0.4), "/c": late("/d", 0.4), "/d": play.answer(b"done")}
    with playing(plays) as tricks:
        body: list[bytes] = []
        downloader_for(tricks).get(tricks.url("/a"), body.append, max_bytes=10)
        assert b"".join(body) == b"done"
        tricks.heads.clear()
        with pytest.raises(Unreachable, match="ReadTimeout"):  # each hop alone would be in time
            downloader_for(tricks, total_s=0.7).get(tricks.url("/a"), body.append, max_bytes=10)
        assert "/d" not in tricks.targets


def test_named_hosts_hold_for_redirects_too() -> None:
    plays = {"/a": play.redirect("http://b.test:{port}/b"), "/b": play.answer(b"done")}
    with playing(plays) as tricks:
        names = Names({"a.test": [["127.0.0.1"]], "b.test": [["127.0.0.1"]]})
        downloader = Downloader(tricks.rules, connect_s=WAIT_S, total_s=WAIT_S, look_up=names)
        url = tricks.url("/a", "a.test")
        body: list[bytes] = []
        done = downloader.only(["a.test", "b.test"]).get(url, body.append, max_bytes=10)
        assert (done.url, done.changed, body) == (tricks.url("/b", "b.test"), True, [b"done"])
        with pytest.raises(AddressRefused, match=r"a\.test redirects: b\.test is not reached; accepted: a\.test"):
            downloader.only(["a.test"]).get(url, body.append, max_bytes=10)
        with pytest.raises(ValueError, match="accepted: a host's name"):
            downloader.only(["http://a.test"])


def test_exactly_as_much_as_is_allowed_is_taken() -> None:
    plays = {"/a": play.answer(b"x" * 10), "/b": play.raw(play.head(), b"x" * 10)}
    plays["/c"] = play.answer(play.compressed(b"x" * 100), "Content-Encoding: gzip")
    with playing(plays) as tricks:
        for path, most in (("/a", 10), ("/b", 10), ("/c", 100)):
            body: list[bytes] = []
            downloader_for(tricks).get(tricks.url(path), body.append, max_bytes=most)
            assert b"".join(body) == b"x" * most


def test_what_a_server_says_of_itself_is_kept_only_if_it_can_be_said_again() -> None:
    plays = {"/a": play.answer(b"", f"ETag: {'x' * 2000}", "Last-Modified: \xe9")}
    plays["/b"] = play.answer(b"", 'ETag: W/"x"', "Last-Modified: yesterday")
    with playing(plays) as tricks:
        for path, etag, modified in (("/a", None, None), ("/b", 'W/"x"', "yesterday")):
            done = downloader_for(tricks).get(tricks.url(path), lambda _: None, max_bytes=10)
            assert done.validators == Validators(url=tricks.url(path), etag=etag, last_modified=modified)


def test_what_was_secured_is_not_taken_from_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = tmp_path / "both.pem", tmp_path / "key.pem"
    subprocess.run(
        [programs.find("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", str(key), "-out", str(pem), "-days", "2", "-subj", "/CN=a.test",
         "-addext", "subjectAltName=DNS:a.test"],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    pem.write_text(pem.read_text() + key.read_text())
    with playing({"/plain": play.answer(b"done")}) as tricks, receiving(certificate=pem) as secure:
        target = [tricks.url("/plain")]

        def redirect(handler: BaseHTTPRequestHandler, _: Received) -> None:
            handler.send_response(302)
            handler.send_header("Location", target[0])
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        secure.answer = redirect
        rules = Rules.of(["127.0.0.1"], [secure.port, tricks.port])
        names = Names({"a.test": [["127.0.0.1"]]})
        downloader = Downloader(rules, connect_s=WAIT_S, total_s=WAIT_S, look_up=names)
        with pytest.raises(SourceFailed, match=r"a\.test redirects from https to http"):
            downloader.get(f"https://a.test:{secure.port}/", lambda _: None, max_bytes=10)
        assert tricks.heads == []
        tricks.plays["/up"] = play.redirect(f"https://a.test:{secure.port}/")
        target[0] = f"https://a.test:{secure.port}/"
        with pytest.raises(SourceFailed, match="more than 3 times"):  # the other way is followed
            downloader.get(tricks.url("/up"), lambda _: None, max_bytes=10)
        assert len(secure.requests) == 4
