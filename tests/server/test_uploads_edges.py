"""Uploads that end in another way than most: cut off, paused, contested, sent in chunks."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest
from PIL import Image
from tests.engine.pictures import encoded, noise, quadrants
from tests.files import files_in
from tests.server.running import (
    Server,
    nothing_stored,
    on_their_way,
    peak_mib,
    read_answer,
    rows,
    running,
    stored_files,
)
from tests.waiting import WAIT_S, until

MIB = 1024 * 1024
GROWTH_MIB = 24
PNG = encoded(quadrants())
BIG = encoded(noise(1200, 900), "tiff")  # half of it is more than the memory of one upload: it is written to disk
TAIL = b"\r\n--b--\r\n"


def begun(server: Server, ident: str, *, chunked: bool) -> tuple[socket.socket, bytes]:
    """Begin an upload and wait until half of it is on the disk; return the connection and the other half."""
    body = b'--b\r\nContent-Disposition: form-data; name="ident"\r\n\r\n%s\r\n' % ident.encode()
    body += b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.tiff"\r\n\r\n' + BIG + TAIL
    half = len(body) // 2
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n" + length
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    connection.sendall(head + b"\r\n\r\n" + (b"%x\r\n%s\r\n" % (half, body[:half]) if chunked else body[:half]))
    until(lambda: received_bytes(server) > 0, otherwise=lambda: "nothing was received")
    rest = body[half:]
    return connection, b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest) if chunked else rest


def received_bytes(server: Server) -> int:
    size = 0
    for path in files_in(server.data / "incoming"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_goes_away_in_the_middle_leaves_nothing(server: Server, chunked: bool, leave: str) -> None:
    ident = f"gone-{chunked}-{leave}"
    with nothing_stored(server.data):
        connection, _ = begun(server, ident, chunked=chunked)
        if leave == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        until(lambda: not on_their_way(server.data), otherwise=lambda: str(stored_files(server.data)))
    assert server.upload(PNG, ident=ident) == ident  # it was not claimed


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_is_finished_after_a_pause_is_stored(server: Server, chunked: bool) -> None:
    ident = f"paused-{chunked}"
    connection, rest = begun(server, ident, chunked=chunked)
    with connection:
        assert ident not in rows(server.data)  # nothing is visible yet
        assert server.get(f"/image/{ident}.tiff").status_code == 404
        connection.sendall(rest)
        assert read_answer(connection).status == 201
    assert server.get(f"/image/{ident}.tiff", accept="image/tiff").content == BIG


def test_a_contested_ident_is_given_once(server: Server) -> None:
    crowd = 12
    images = [encoded(noise(40 + number, 40)) for number in range(crowd)]
    barrier = Barrier(crowd)

    def upload(image: bytes) -> int:
        with server.client() as client:
            client.get("/healthz")  # the connection is there when all begin
            barrier.wait(WAIT_S)
            return client.post("/upload", files={"image": image}, data={"ident": "contested"}).status_code

    with ThreadPoolExecutor(crowd) as threads:
        statuses = list(threads.map(upload, images))
    assert sorted(statuses) == [201] + [409] * (crowd - 1)
    assert server.get("/image/contested.png").content == images[statuses.index(201)]
    assert [path.name for path in (server.data / "images" / "contested").iterdir()] == ["origin.png"]
    until(lambda: not on_their_way(server.data))


def test_a_size_that_this_image_cannot_have_does_not_spoil_the_upload(server: Server) -> None:
    line = encoded(Image.new("L", (2, 3000), 9))
    ident = server.upload(line, sizes="100x0,2x0")  # the first would be 150,000 pixels high
    assert server.picture(f"/image/2/{ident}.jpg").size == (2, 3000)
    assert server.get(f"/image/100/{ident}.jpg").status_code == 400


def test_a_small_field_that_never_ends_is_not_kept_in_memory(tmp_path: Path) -> None:
    def body() -> bytes:
        return b'--b\r\nContent-Disposition: form-data; name="sizes"\r\n\r\n' + b"1" * (48 * MIB) + TAIL

    with running(tmp_path / "data") as server, server.client() as client:
        assert client.post("/upload", files={"image": PNG}).status_code == 201  # all code is loaded
        before = peak_mib(server)
        answer = client.post("/upload", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
        assert answer.status_code == 413
        assert peak_mib(server) - before < GROWTH_MIB


def test_a_form_that_never_ends_is_refused(tmp_path: Path) -> None:
    """However little of it is kept: here nothing at all."""
    with running(tmp_path / "data", max_bytes=str(MIB)) as server, nothing_stored(server.data):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        with connection:
            head = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            part = b'--b\r\nContent-Disposition: form-data; name="x%d"\r\n\r\n\r\n'
            chunk = b"".join(part % number for number in range(1000))
            with suppress(OSError):  # the server may close while we send
                for _ in range(4000):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            assert read_answer(connection).status in (400, 413)


@pytest.mark.parametrize("boundary", [b"", b"x" * 5000, b'"'])
def test_a_boundary_that_is_none_is_refused(server: Server, boundary: bytes) -> None:
    kind = b"multipart/form-data; boundary=" + boundary
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", content=b"--x\r\n", headers=[(b"content-type", kind)])
    assert answer.status_code == 400, answer.text
    assert answer.headers["lazypix-error"] == "bad_upload"


def test_metadata_is_kept_with_the_image(server: Server) -> None:
    ident = server.upload(PNG, metadata='{"photographer": "Ansel", "year": 1941}')
    assert server.get(f"/info/{ident}").json()["content"]["metadata"] == {"photographer": "Ansel", "year": 1941}
    assert server.get(f"/info/{server.upload(PNG)}").json()["content"]["metadata"] == {}


@pytest.mark.parametrize("text", ["[]", "1", "null", "{", '{"a": NaN}', "{'a': 1}", "[" * 60_000])
def test_metadata_that_is_no_json_object_is_refused(server: Server, text: str) -> None:
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", files={"image": PNG}, data={"metadata": text})
    assert answer.status_code == 400, answer.text
    assert "a JSON object" in answer.json()["content"]
