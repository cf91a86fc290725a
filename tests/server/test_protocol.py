"""Connections: what is kept alive, asked ahead, too long, too slow; and answers that come straight from memory."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.server.running import RawAnswer, Server, error_of, nothing_stored, peak_mib, read_answer, running
from tests.waiting import WAIT_S, until

from lazypix.server.protocol import HEAD_DEADLINE_S, LINGER_S

KIB = 1024


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose memory keeps answers for as long as a test may take."""
    with running(tmp_path_factory.mktemp("patient") / "data", cache_ttl_s="600") as server:
        yield server


@pytest.fixture(scope="module")
def target(patient: Server) -> str:
    """The address of a variant that lies in memory."""
    address = f"/image/60x/{patient.upload(jpg(quadrants()))}.jpg"
    patient.get(address)
    assert patient.get(address).headers["server-timing"] == "cache;desc=hit"
    return address


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: h", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def answers(connection: socket.socket, *methods: str) -> list[RawAnswer]:
    """Read answers one after the other, and not a byte more than each has."""
    return [_answer(connection, method) for method in methods]


def _answer(connection: socket.socket, method: str) -> RawAnswer:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, head
        head += piece
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
    status = int(lines[0].split()[1])
    left = 0 if method == "HEAD" or status == 304 else int(headers["content-length"])
    body = b""
    while len(body) < left:
        body += connection.recv(left - len(body))
    return RawAnswer(status=status, headers=headers, body=body)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# --- hits ------------------------------------------------------------------------------------------------------


def test_a_hit_is_what_the_first_answer_was(patient: Server) -> None:
    address = f"/image/70x/{patient.upload(jpg(quadrants()))}.jpg"
    first, hit = patient.get(address), patient.get(address)
    assert hit.headers["server-timing"] == "cache;desc=hit"
    assert first.content == hit.content
    changing = ("server-timing", "date")
    assert [each for each in first.headers.items() if each[0] not in changing] == [
        each for each in hit.headers.items() if each[0] not in changing
    ]
    assert "date" in hit.headers


def test_many_hits_on_one_connection(patient: Server, target: str) -> None:
    tag = patient.get(target).headers["etag"]
    with connected(patient) as connection:
        requests = [
            (get(target), "GET", 200),
            (get(target, method="HEAD"), "HEAD", 200),
            (get(target, "Range: bytes=5-9"), "GET", 206),
            (get(target, f"If-None-Match: {tag}"), "GET", 304),
            (get(target, 'If-Match: "other"'), "GET", 412),
            (get(target, "Range: bytes=99999999-"), "GET", 416),
            (get(target, "Content-Length: 5") + b"12345", "GET", 200),
            (get(target, "Expect: 100-continue"), "GET", 200),
            (get("/healthz"), "GET", 200),
            (get(target), "GET", 200),
        ]
        for request, method, status in requests:
            connection.sendall(request)
            assert _answer(connection, method).status == status, request
        for request, _, _ in requests:  # all at once: the answers come in the same order
            connection.sendall(request)
        found = answers(connection, *(method for _, method, _ in requests))
        assert [answer.status for answer in found] == [status for _, _, status in requests]
        assert found[0].body == found[-1].body == found[-4].body
        assert found[2].body == found[0].body[5:10]


@pytest.mark.parametrize("count", [3000])
def test_thousands_of_requests_sent_ahead_are_answered_in_order(patient: Server, target: str, count: int) -> None:
    other = target.replace("60x", "61x")
    patient.get(other)
    expected = [len(patient.get(each).content) for each in (target, other)]
    with connected(patient) as connection:
        connection.sendall(get("/readyz") + get(target) + get(other))
        connection.sendall(b"".join(get((target, other)[number % 2]) for number in range(count)))
        found = answers(connection, *["GET"] * (count + 3))
    assert [answer.status for answer in found] == [200] * (count + 3)
    assert [len(answer.body) for answer in found[1:]] == [expected[number % 2] for number in range(-2, count)]


@pytest.mark.parametrize(
    ("header", "version", "stays"),
    [
        ("", "1.1", True),
        ("Connection: close", "1.1", False),
        ("", "1.0", False),
        ("Connection: keep-alive", "1.1", True),
    ],
)
def test_a_connection_is_kept_or_closed_as_it_was_asked_for(
    patient: Server, target: str, header: str, version: str, stays: bool
) -> None:
    with connected(patient) as connection:
        connection.sendall(get(target, *([header] if header else []), version=version))
        assert _answer(connection, "GET").status == 200
        if stays:
            connection.sendall(get(target))
            assert _answer(connection, "GET").status == 200
        else:
            assert is_closed(connection)


def test_a_client_that_does_not_read_does_not_fill_the_memory(tmp_path: Path) -> None:
    with running(tmp_path / "data", cache_ttl_s="600") as server:
        large = f"/image/{server.upload(encoded(noise(300, 200)))}.png"  # 180 KB
        small = f"/image/10x/{server.upload(jpg(quadrants()))}.jpg"
        for address in (large, small):
            server.get(address)
            assert server.get(address).headers["server-timing"] == "cache;desc=hit"
        before = peak_mib(server)
        lazy = [connected(server) for _ in range(4)]
        for connection in lazy:
            connection.sendall(get(large) * 500)  # 360 MB in all
        for _ in range(20):
            assert server.get(small).status_code == 200
        assert peak_mib(server) - before < 24
        for connection in lazy:
            connection.close()


def test_the_access_log_has_hits_too(tmp_path: Path) -> None:
    with running(tmp_path / "data", access_log="true", cache_ttl_s="600") as server:
        address = f"/image/60x/{server.upload(jpg(quadrants()))}.jpg"
        answers = [server.get(address) for _ in range(3)]
        assert answers[-1].headers["server-timing"] == "cache;desc=hit"
        until(lambda: server.log.read_text().count(f"GET {address} HTTP/1.1") == 3)


# --- heads that are too long, or too slow ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["line", "value", "name", "many"])
@pytest.mark.parametrize("pieces", [1, 2, 40])
def test_a_head_that_is_too_long_is_refused(server: Server, kind: str, pieces: int) -> None:
    long = "a" * 40 * KIB
    request = {
        "line": get(f"/image/{long}"),
        "value": get("/healthz", f"X-Long: {long}"),
        "name": get("/healthz", f"{long}: x"),
        "many": get("/healthz", *[f"X-{number}: x" for number in range(4000)]),
    }[kind]
    with connected(server) as connection:
        size = len(request) // pieces + 1
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
            if select.select([connection], [], [], 0.002)[0]:  # it is refused before it has ended
                break
        answer = read_answer(connection)
        assert answer.status == 431
        assert "limit of 32768 bytes" in error_of(answer.body)
        assert answer.headers["connection"] == "close"


def test_heads_below_the_limit_are_taken(server: Server) -> None:
    with connected(server) as connection:
        for size in (1, 1000, 30 * KIB):
            connection.sendall(get("/healthz", "X-Long: " + "a" * size))
            assert _answer(connection, "GET").status == 200
        connection.sendall(get("/healthz", "X-Long: " + "a" * 20 * KIB) * 5)  # together they are longer
        assert [answer.status for answer in answers(connection, *["GET"] * 5)] == [200] * 5


def test_a_head_after_a_large_body_is_taken(server: Server) -> None:
    body = encoded(noise(400, 300), "tiff")
    form = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + body + b"\r\n--b--\r\n"
    upload = get(
        "/upload", "Content-Type: multipart/form-data; boundary=b", f"Content-Length: {len(form)}", method="POST"
    )
    after = get("/healthz", "X-Long: " + "a" * 20 * KIB)
    with connected(server) as connection:
        connection.sendall(upload + form + after[:9000])
        time.sleep(0.05)  # on purpose: the head comes in two pieces
        connection.sendall(after[9000:])
        assert [answer.status for answer in answers(connection, "POST", "GET")] == [201, 200]


@pytest.mark.parametrize("where", ["head", "trailer", "extension"])
def test_what_never_ends_is_not_kept_in_memory(tmp_path: Path, where: str) -> None:
    chunked = get(
        "/upload", "Content-Type: multipart/form-data; boundary=b", "Transfer-Encoding: chunked", method="POST"
    )
    start = {
        "head": b"GET / HTTP/1.1\r\nX-Long: ",
        "trailer": chunked + b"1\r\n-\r\n0\r\n",
        "extension": chunked + b"1;a=",
    }[where]
    line = b"X-Trailer: x\r\n" * 80 if where == "trailer" else b"a" * KIB
    with running(tmp_path / "data") as server, nothing_stored(server.data):
        server.get("/healthz")
        before = peak_mib(server)
        with connected(server) as connection:
            sent = 0
            try:
                connection.sendall(start)
                for _ in range(64 * KIB):
                    connection.sendall(line)
                    sent += len(line)
            except OSError:
                pass  # the server has closed the connection
        assert sent < 32 * KIB * KIB
        assert peak_mib(server) - before < 24
        assert server.get("/healthz").status_code == 200


def test_a_head_that_is_too_slow_is_given_up(server: Server) -> None:
    with connected(server) as silent, connected(server) as slow, connected(server) as kept:
        kept.sendall(get("/healthz"))
        assert _answer(kept, "GET").status == 200
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost")
        assert read_answer(slow).status == 408
        assert is_closed(silent)
        kept.sendall(get("/healthz"))  # idle between requests it may be for longer
        assert _answer(kept, "GET").status == 200


def test_a_request_that_came_while_the_server_stood_still_is_answered(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server, connected(server) as silent, connected(server) as begun:
        begun.sendall(b"GET /healthz HT")
        assert server.get("/healthz").status_code == 200  # it has accepted them
        os.killpg(server.pid, signal.SIGSTOP)
        silent.sendall(get("/healthz"))
        begun.sendall(b"TP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(HEAD_DEADLINE_S + 1)
        os.killpg(server.pid, signal.SIGCONT)
        for connection in (silent, begun):
            assert answers(connection, "GET")[0].status == 200


def test_what_is_no_http_gets_the_envelope(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        answer = read_answer(connection)
    assert answer.status == 400
    assert error_of(answer.body)
    assert answer.headers["content-type"] == "application/json"


# --- requests that are refused before their body has come ------------------------------------------------------

REFUSED = [
    ("/upload", "Content-Type: text/plain", 400),
    ("/upload", "Content-Type: multipart/form-data; boundary=b", 400),
    ("/no/such/place", "Content-Type: text/plain", 404),
    ("/image/60x/x.jpg", "Content-Type: text/plain", 405),
]


@pytest.mark.parametrize(("target", "kind", "status"), REFUSED)
@pytest.mark.parametrize(("version", "connection"), [("1.1", "close"), ("1.1", "keep-alive"), ("1.0", "close")])
def test_whoever_sends_all_before_reading_can_read_why_it_was_refused(
    server: Server, target: str, kind: str, status: int, version: str, connection: str
) -> None:
    """As urllib does, and nginx with its defaults: a connection that were reset would lose them the answer."""
    size = 16 * KIB * KIB
    head = get(target, kind, f"Content-Length: {size}", f"Connection: {connection}", method="POST", version=version)
    with connected(server) as client:
        client.sendall(head)
        for _ in range(16):
            client.sendall(bytes(KIB * KIB))
        answer = read_answer(client, "POST")
    assert answer.status == status
    assert error_of(answer.body)


def test_a_client_that_sends_on_after_a_refusal_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with running(tmp_path / "data", drain_s="600") as server, connected(server) as client:
        client.sendall(get("/upload", "Content-Length: 1000000", "Connection: close", method="POST"))
        assert read_answer(client, "POST").status == 400
        client.sendall(bytes(1000))  # it is not closed yet
        server.process.terminate()
        assert server.process.wait(LINGER_S - 5) in (0, -signal.SIGTERM), "sooner than clients are waited for"
