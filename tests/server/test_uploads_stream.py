"""Uploads stream: memory stays bounded, and a client that goes away leaves nothing."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.server.running import Server, nothing_stored, peak_mib, read_answer, running, trickling
from tests.waiting import WAIT_S, until

MIB = 1024 * 1024


@pytest.mark.parametrize("kind", ["file", "field", "urlencoded"])
def test_memory_stays_bounded_however_large_the_body(tmp_path: Path, kind: str) -> None:
    body = noise_of(60 * MIB)
    with running(tmp_path / "data") as server:
        server.upload(jpg(quadrants()))
        before = peak_mib(server)
        with server.client() as client:
            if kind == "file":
                answer = client.post("/upload", files={"image": ("a.jpg", body)})
            elif kind == "field":
                answer = client.post("/upload", files={"image": (None, body)})
            else:
                answer = client.post(
                    "/upload", content=b"image=" + body.replace(b"%", b"_").replace(b"&", b"_"),
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                )  # fmt: skip
        assert answer.status_code == 422, answer.text  # received to its end, and then seen to be damaged
        assert peak_mib(server) - before < 24


def noise_of(size: int) -> bytes:
    """Bytes that begin like a JPEG."""
    start = jpg(noise(100, 100))[:600]
    return start + b"\x5a" * (size - len(start))


def begin_upload(server: Server, body: bytes, *, announced: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    head = f"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {announced}\r\n\r\n"
    connection.sendall(head.encode() + part + body)
    return connection


def test_a_client_that_goes_away_leaves_nothing_behind(server: Server) -> None:
    picture = encoded(noise(500, 500))
    incoming = server.data / "incoming"
    with nothing_stored(server.data):
        for _ in range(5):
            connection = begin_upload(server, picture[: len(picture) // 2], announced=len(picture) + 200)
            until(lambda: any(incoming.iterdir()), otherwise=lambda: "the upload did not begin")
            connection.close()
            until(lambda: not any(incoming.iterdir()), otherwise=lambda: f"{list(incoming.iterdir())}")


def test_an_upload_that_stands_still_is_given_up(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", upload_idle_s="0.3") as server,
        nothing_stored(server.data),
        begin_upload(server, b"\x89PNG", announced=1000) as connection,
    ):
        assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]


def test_an_upload_that_trickles_is_given_up(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", upload_idle_s="600", upload_deadline_s="1") as server,
        nothing_stored(server.data),
        begin_upload(server, b"\x89PNG", announced=100_000) as connection,
    ):
        with trickling(connection):
            answer = read_answer(connection)
        assert answer.status == 408
        assert b"within 1 seconds" in answer.body


def test_when_all_places_are_taken_for_long_it_is_busy(tmp_path: Path) -> None:
    picture = jpg(quadrants())
    with running(tmp_path / "data", uploads="1", upload_idle_s="600", request_deadline_s="5") as server:
        with begin_upload(server, b"\x89PNG", announced=1000):
            until(lambda: any((server.data / "incoming").iterdir()))
            with server.client() as client:
                busy = client.post("/upload", files={"image": picture})
                assert busy.status_code == 503
                assert int(busy.headers["retry-after"]) > 0
                assert client.get("/readyz").status_code == 200
        until(lambda: not any((server.data / "incoming").iterdir()))
        server.upload(picture)


def test_more_uploads_than_places_wait_and_all_finish(tmp_path: Path) -> None:
    picture = encoded(noise(200, 200))
    with running(tmp_path / "data", uploads="2") as server:
        done: list[int] = []

        def upload_slowly() -> None:
            tail = b"\r\n--b--\r\n"
            part = len(b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n')
            half = len(picture) // 2
            with begin_upload(server, picture[:half], announced=part + len(picture) + len(tail)) as connection:
                time.sleep(0.1)  # slow on purpose: this is the client
                connection.sendall(picture[half:] + tail)
                done.append(int(connection.recv(4096).split()[1]))

        threads = [threading.Thread(target=upload_slowly) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert done == [201] * 8
