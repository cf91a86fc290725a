"""Requests over real connections: where they lead, how long they take, and what is read of the answers."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpcore
import pytest
from tests import programs
from tests.ports import free_port
from tests.receiving import Received, Receiver, receiving
from tests.waiting import WAIT_S

from lazypix.errors import AddressRefused, BadRequest, Unreachable
from lazypix.outbound.client import OutboundClient
from lazypix.outbound.connecting import look_up
from lazypix.outbound.rules import Rules


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(address="0.0.0.0") as running:
        yield running


class Names:
    """Names and their addresses, which can change from one look to the next."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, seconds: float) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0)


def client(port: int, *allowed: str, names: Names | None = None, total_s: float = WAIT_S) -> OutboundClient:
    rules = Rules.of(allowed or ["127.0.0.1"], [port])
    return OutboundClient(rules, connect_s=WAIT_S, total_s=total_s, look_up=names or look_up)


def test_a_request_goes_out_as_it_is_and_the_answer_comes_back(receiver: Receiver) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(202)
        handler.send_header("X-Some", "thing")
        handler.send_header("content-length", "4")
        handler.end_headers()
        handler.wfile.write(b"done")

    receiver.answer = answer
    reply = client(receiver.port).send(
        "POST", f"{receiver.url}/a/b?c=%3Cd%3E", headers={"x-own": "1"}, body=b"\x00\xff"
    )
    assert (reply.status, reply.is_success, reply.headers["x-some"], reply.body) == (202, True, "thing", b"done")
    (request,) = receiver.requests
    assert (request.method, request.target, request.body) == ("POST", "/a/b?c=%3Cd%3E", b"\x00\xff")
    assert (request.headers["x-own"], request.headers["host"]) == ("1", f"127.0.0.1:{receiver.port}")
    assert request.headers["user-agent"].startswith("lazypix/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0"])
def test_this_machine_is_not_reached_by_any_of_its_names(receiver: Receiver, host: str) -> None:
    guarded = OutboundClient(Rules.of([], [receiver.port]), connect_s=WAIT_S, total_s=WAIT_S)
    with pytest.raises(AddressRefused, match=r"is (loopback|unspecified)"):
        guarded.send("GET", f"http://{host}:{receiver.port}/")
    assert receiver.requests == []


def test_a_name_that_changes_its_address_leads_nowhere(receiver: Receiver) -> None:
    names = Names(["127.0.0.2"], ["127.0.0.3"])
    asking = client(receiver.port, "127.0.0.2", names=names)
    url = f"http://changing.test:{receiver.port}/"
    assert asking.send("GET", url).is_success
    with pytest.raises(AddressRefused, match=r"changing\.test"):
        asking.send("GET", url)
    assert (
        names.asked == ["changing.test"] * 2
    )  # looked up once for each connection: what was checked is connected to
    (request,) = receiver.requests
    assert request.reached == "127.0.0.2"
    assert request.headers["host"] == f"changing.test:{receiver.port}"


def test_one_refused_address_among_several_is_enough(receiver: Receiver) -> None:
    for addresses in (["127.0.0.2", "127.0.0.3"], ["127.0.0.3", "127.0.0.2"], ["127.0.0.2", "::ffff:127.0.0.2"]):
        with pytest.raises(AddressRefused):
            client(receiver.port, "127.0.0.2", names=Names(addresses)).send("GET", f"http://a.test:{receiver.port}/")
    assert receiver.requests == []


def test_the_next_address_is_tried_when_one_does_not_answer(receiver: Receiver) -> None:
    closed = free_port()
    with receiving(address="127.0.0.3", port=closed) as second:
        asking = client(closed, "127.0.0.0/8", names=Names(["127.0.0.2", "127.0.0.3"]))
        assert asking.send("GET", f"http://a.test:{closed}/").is_success
        assert [request.reached for request in second.requests] == ["127.0.0.3"]
    with pytest.raises(Unreachable, match=r"a\.test"):
        client(closed, "127.0.0.0/8", names=Names(["127.0.0.2"])).send("GET", f"http://a.test:{closed}/secret")


def test_redirects_are_answers_and_not_followed(receiver: Receiver) -> None:
    def redirect(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(302)
        handler.send_header("location", "http://169.254.169.254/")
        handler.send_header("content-length", "0")
        handler.end_headers()

    receiver.answer = redirect
    reply = client(receiver.port).send("GET", receiver.url)
    assert (reply.status, reply.is_success) == (302, False)
    assert len(receiver.requests) == 1


def test_proxies_of_the_environment_are_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert client(receiver.port).send("GET", receiver.url).is_success
        assert proxy.requests == []


def test_a_body_without_end_is_read_for_a_while_only(receiver: Receiver) -> None:
    cut = threading.Event()

    def pour(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            cut.set()

    receiver.answer = pour
    assert client(receiver.port).send("GET", receiver.url).body == b"x" * 65_536
    assert cut.wait(30)


@pytest.mark.parametrize("where", ["head", "body"])
def test_an_answer_that_drips_is_not_waited_for(receiver: Receiver, where: str) -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, _: Received) -> None:
        try:
            if where == "body":
                handler.send_response(200)
                handler.end_headers()
            else:
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            while not over.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            over.set()

    receiver.answer = drip
    try:
        with pytest.raises(Unreachable, match="ReadTimeout"):
            # Not shorter: the request must have been sent by then, on a busy machine too.
            client(receiver.port, names=Names(["127.0.0.1"]), total_s=5).send("GET", receiver.url)
        assert over.wait(30)  # the connection was closed
    finally:
        over.set()


def test_a_name_server_that_does_not_answer_is_not_waited_for() -> None:
    with pytest.raises(Unreachable, match=r"nowhere\.invalid"):
        OutboundClient(Rules()).send("GET", "http://nowhere.invalid/")
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        over.wait(30)
        return []

    try:
        with pytest.raises(httpcore.ConnectTimeout):
            look_up("host.test", 80, 0.05, resolve=hang)
    finally:
        over.set()


@pytest.mark.parametrize("url", ["ftp://a.test/", "http://a.test:22/", "http://u:p@a.test/", "http://127.0.0.1/"])
def test_a_url_is_read_before_anything_is_done(url: str) -> None:
    with pytest.raises(BadRequest):
        OutboundClient(Rules()).send("GET", url)


@pytest.mark.parametrize("host", ["xn--a.test", "xn--zzzzzzzzzzz"])
def test_a_name_that_stands_for_nothing_is_refused(host: str) -> None:
    with pytest.raises(BadRequest, match=f"'{host}' is no name of a host"):
        OutboundClient(Rules()).send("GET", f"http://{host}/?token=hidden")


def test_nonsense_is_not_an_answer(receiver: Receiver) -> None:
    def greet(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.wfile.write(b"220 mail.test ESMTP\r\n")

    receiver.answer = greet
    with pytest.raises(Unreachable, match="RemoteProtocolError"):
        client(receiver.port).send("GET", f"{receiver.url}/?token=hidden")


def test_tls_asks_for_the_certificate_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = tmp_path / "both.pem"
    subprocess.run(
        [programs.find("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"), "-days", "2", "-subj", "/CN=a.test",
         "-addext", "subjectAltName=DNS:a.test"],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    both.write_text((tmp_path / "cert.pem").read_text() + (tmp_path / "key.pem").read_text())
    with receiving(certificate=both) as secure:
        for trusted, name, fine in ((True, "a.test", True), (True, "b.test", False), (False, "a.test", False)):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            else:
                monkeypatch.delenv("SSL_CERT_FILE")
            asking = client(secure.port, "127.0.0.1", names=Names(["127.0.0.1"]))
            if fine:
                assert asking.send("GET", f"https://{name}:{secure.port}/").is_success
            else:
                with pytest.raises(Unreachable, match="ConnectError"):
                    asking.send("GET", f"https://{name}:{secure.port}/")
        assert len(secure.requests) == 1
