"""Uploads in pieces by the tus protocol, with a client that is not ours, and below it."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engine.pictures import jpg, noise, quadrants
from tests.fleet.machines import machines, shared_settings
from tests.ports import free_port
from tests.programs import Program
from tests.server.nginx import nginx
from tests.server.running import (
    Server,
    ask,
    begin,
    kill,
    read_answer,
    running,
    stored_files,
    trickling,
    wait_until_ready,
)
from tests.waiting import WAIT_S, until
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed
from tusclient.uploader.uploader import Uploader

from lazypix.composition import open_library
from lazypix.engine.idle import IdleEngine
from lazypix.nginx import configuration, front_of
from lazypix.settings import Settings

PICTURE = jpg(noise(600, 400))
CHUNK = len(PICTURE) // 5
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}


def tuspy(
    server: Server, data: bytes = PICTURE, *, port: int = 0, key: str = "", url: str | None = None, **options: Any
) -> Uploader:
    """An uploader of a client that is not ours, which sends in chunks."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = TusClient(f"http://127.0.0.1:{port or server.port}/files/", headers=headers)
    return client.uploader(file_stream=io.BytesIO(data), chunk_size=CHUNK, url=url, **options)


def last_headers(uploader: Uploader) -> Mapping[str, str]:
    answered: Any = uploader.request
    return dict(answered.response_headers)


def described(**fields: str) -> dict[str, str]:
    pairs = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items())
    return {"Upload-Metadata": ",".join(pairs)}


def created(server: Server, **fields: str) -> str:
    """Begin an upload of the picture; return its path."""
    headers = TUS | described(**fields) | {"Upload-Length": str(len(PICTURE))}
    answer = ask("POST", f"{server.url}/files/", headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(server: Server, path: str, at: int, data: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask("PATCH", f"{server.url}{path}", content=data, headers=PIECE | {"Upload-Offset": str(at)} | named)


def head(server: Server, path: str) -> httpx.Response:
    return ask("HEAD", f"{server.url}{path}", headers=TUS)


def offset(server: Server, path: str) -> int:
    return int(head(server, path).headers["upload-offset"])


def original(server: Server, ident: str) -> bytes:
    return server.get(f"/image/{ident}.jpg").content


# --- a client that we did not write -----------------------------------------------------------------------------


def test_tuspy_uploads_in_chunks_with_checksums(server: Server) -> None:
    fields = {"filename": "noise.jpg", "ident": "by-tuspy", "metadata": '{"by": "tuspy"}', "filetype": "image/jpeg"}
    uploader = tuspy(server, upload_checksum=True, metadata=fields)
    uploader.upload()
    assert last_headers(uploader)["lazypix-ident"] == "by-tuspy"
    assert original(server, "by-tuspy") == PICTURE
    facts = server.get("/info/by-tuspy").json()["content"]
    assert (facts["filename"], facts["metadata"]) == ("noise.jpg", {"by": "tuspy"})


def test_tuspy_is_interrupted_and_another_one_goes_on(server: Server) -> None:
    first = tuspy(server, metadata={"ident": "resumed"})
    first.upload(stop_at=2 * CHUNK)
    second = tuspy(server, url=first.url)
    assert second.offset == 2 * CHUNK
    second.upload()
    assert original(server, "resumed") == PICTURE


def test_tuspy_is_told_that_it_is_no_image(server: Server) -> None:
    uploader = tuspy(server, b"text " * CHUNK)
    with pytest.raises(TusUploadFailed) as told:
        uploader.upload()
    assert told.value.status_code == 415
    assert b'"error"' in told.value.response_content
    assert ask("HEAD", uploader.url or "", headers=TUS).status_code == 404


def test_two_machines_take_the_pieces_in_turn(
    seaweedfs: Program, new_database: Callable[[], str], tmp_path: Path
) -> None:
    with machines(tmp_path, 2, **shared_settings(seaweedfs, new_database())) as (one, two):
        path = created(one, ident="shared")
        for server in (one, two, one, two, one, two):
            uploader = tuspy(server, url=server.url + path)
            if uploader.offset < len(PICTURE):
                uploader.upload(stop_at=min(uploader.offset + CHUNK, len(PICTURE)))
        for server in (one, two):
            assert original(server, "shared") == PICTURE
        # A machine dies in the middle of a piece: what was acknowledged is there for the other.
        path = created(one, ident="orphaned")
        assert patch(one, path, 0, PICTURE[:CHUNK]).status_code == 204
        with begun(one, path, CHUNK, PICTURE[CHUNK : 2 * CHUNK], announced=len(PICTURE) - CHUNK):
            kill(one)
        assert offset(two, path) == CHUNK
        assert patch(two, path, CHUNK, PICTURE[CHUNK:]).headers["lazypix-ident"] == "orphaned"
        assert original(two, "orphaned") == PICTURE


def test_tuspy_comes_through_nginx(tmp_path: Path) -> None:
    key = "a-key-of-16-chars"
    with running(tmp_path / "data", api_keys=key) as server:
        port = free_port()
        given = {"data": server.data, "port": server.port, "api_keys": [key], "urls": "open"}
        settings = Settings.model_validate(given)
        with open_library(settings, IdleEngine(), tidies=False) as library:
            front = front_of(settings, library, listen=f"127.0.0.1:{port}", cache_dir=tmp_path / "cache")
        with nginx(tmp_path, configuration(front), port):
            uploader = tuspy(server, port=port, key=key)
            uploader.upload()
            assert original(server, last_headers(uploader)["lazypix-ident"]) == PICTURE
            check_pages_of_other_sites(f"http://127.0.0.1:{port}/files/", key)


def check_pages_of_other_sites(url: str, key: str) -> None:
    """A page of another site that has a key can do all it needs, and without gets an answer that it can read."""
    preflight = ask("OPTIONS", url, headers={"Origin": "https://elsewhere.example"})
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"]
    for name in ("authorization", "content-type", "tus-resumable", "upload-offset", "upload-checksum"):
        assert name in allowed
    headers = TUS | {"Upload-Length": "10", "Origin": "https://x.example"}
    answer = ask("POST", url, headers=headers | {"Authorization": f"Bearer {key}"})
    assert answer.status_code == 201
    for name in ("location", "upload-offset", "upload-expires", "tus-resumable", "lazypix-ident"):
        assert name in answer.headers["access-control-expose-headers"]
    refused = ask("POST", url, headers=headers)
    assert (refused.status_code, refused.headers["tus-resumable"]) == (401, "1.0.0")
    assert refused.headers["access-control-allow-origin"] == "*"


# --- what breaks ------------------------------------------------------------------------------------------------


@contextmanager
def begun(server: Server, path: str, at: int, data: bytes, *, announced: int) -> Iterator[socket.socket]:
    """Send some of a piece, and wait until it has come."""
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {at}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {announced}\r\n\r\n"
    )
    incoming = server.data / "incoming"
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(head.encode() + data)
        until(lambda: any(incoming.iterdir()), otherwise=lambda: "nothing was received")
        yield connection


def test_what_came_before_the_connection_broke_is_kept(server: Server) -> None:
    path = created(server, ident="broken-off")
    with begun(server, path, 0, PICTURE[:CHUNK], announced=len(PICTURE)):
        pass
    until(lambda: offset(server, path) == CHUNK, otherwise=lambda: str(offset(server, path)))
    assert patch(server, path, CHUNK, PICTURE[CHUNK:]).headers["lazypix-ident"] == "broken-off"
    assert original(server, "broken-off") == PICTURE


def test_of_a_piece_with_a_checksum_all_or_nothing_is_kept(server: Server) -> None:
    path = created(server)
    digest = base64.b64encode(hashlib.sha256(PICTURE).digest()).decode()
    request = (
        f"PATCH {path} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(PICTURE)}\r\n"
        f"Upload-Checksum: sha256 {digest}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(request.encode() + PICTURE[:CHUNK])
        until(lambda: any((server.data / "incoming").iterdir()))
    until(lambda: not any((server.data / "incoming").iterdir()))
    assert offset(server, path) == 0


def test_while_all_places_are_taken_a_piece_is_refused(tmp_path: Path) -> None:
    limits = {"uploads": "1", "upload_idle_s": "600", "request_deadline_s": "5"}
    with running(tmp_path / "data", **limits) as server:
        path, other = created(server), created(server)
        with begun(server, path, 0, PICTURE[:CHUNK], announced=len(PICTURE)):
            busy = patch(server, other, 0, PICTURE[:CHUNK])
            assert (busy.status_code, busy.headers["lazypix-error"]) == (503, "busy")
            assert int(busy.headers["retry-after"]) > 0
        assert offset(server, other) == 0


def test_a_piece_that_stands_still_is_given_up_and_kept(tmp_path: Path) -> None:
    with running(tmp_path / "data", upload_idle_s="1.5") as server:
        path = created(server)
        with begun(server, path, 0, PICTURE[:CHUNK], announced=len(PICTURE)) as connection:
            answer = read_answer(connection)
        assert (answer.status, answer.headers["lazypix-error"]) == (408, "too_slow")
        assert offset(server, path) == CHUNK


def test_a_piece_that_trickles_is_given_up_and_kept(tmp_path: Path) -> None:
    with running(tmp_path / "data", upload_idle_s="600", upload_deadline_s="5") as server:
        path = created(server)
        with (
            begun(server, path, 0, PICTURE[:CHUNK], announced=len(PICTURE)) as connection,
            trickling(connection),
        ):
            answer = read_answer(connection)
        assert answer.status == 408
        assert offset(server, path) > CHUNK


def test_a_server_that_is_killed_loses_the_piece_under_way_at_most(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = begin(data)
    try:
        wait_until_ready(server)
        path = created(server, ident="survivor")
        assert patch(server, path, 0, PICTURE[:CHUNK]).status_code == 204
        with begun(server, path, CHUNK, PICTURE[CHUNK : 2 * CHUNK], announced=len(PICTURE) - CHUNK):
            kill(server)
    finally:
        kill(server)
    with running(data) as again:
        uploader = tuspy(again, url=again.url + path)
        assert uploader.offset == CHUNK
        uploader.upload()
        assert original(again, "survivor") == PICTURE
        until(lambda: stored_files(data) == {"images/survivor/origin.jpg"}, otherwise=lambda: f"{stored_files(data)}")


def test_of_several_pieces_for_one_place_one_is_taken(server: Server) -> None:
    path = created(server, ident="contested-piece")
    crowd = 6
    barrier = threading.Barrier(crowd)

    def send(_: int) -> int:
        barrier.wait(WAIT_S)
        return patch(server, path, 0, PICTURE[:CHUNK]).status_code

    with ThreadPoolExecutor(crowd) as threads:
        statuses = sorted(threads.map(send, range(crowd)))
    assert statuses == [204] + [409] * (crowd - 1)
    assert offset(server, path) == CHUNK
    assert patch(server, path, CHUNK, PICTURE[CHUNK:]).status_code == 204
    assert original(server, "contested-piece") == PICTURE


def test_what_is_not_gone_on_with_is_gone(server: Server) -> None:
    path = created(server)
    assert patch(server, path, 0, PICTURE[:CHUNK]).status_code == 204
    with closing(sqlite3.connect(server.data / "catalog.sqlite", timeout=WAIT_S)) as connection, connection:
        connection.execute("UPDATE uploads SET until_us = 1 WHERE id = ?", [path.removeprefix("/files/")])
    for answer in (head(server, path), patch(server, path, CHUNK, PICTURE[CHUNK:])):
        assert (answer.status_code, answer.headers["lazypix-error"]) == (410, "upload_gone")


# --- the protocol, point by point -------------------------------------------------------------------------------


def test_options_tell_what_the_server_can_do(server: Server) -> None:
    for path in ("/files/", "/files/0123"):
        answer = ask("OPTIONS", f"{server.url}{path}")
        assert answer.status_code == 204
        assert answer.headers["tus-resumable"] == answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-extension"] == "creation,creation-with-upload,expiration,termination,checksum"
        assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"
        assert answer.headers["tus-max-size"] == str(64 * 1024 * 1024)
    assert "tus-version" not in ask("OPTIONS", f"{server.url}/upload").headers


def test_without_keys_pages_of_other_sites_are_refused(server: Server) -> None:
    headers = TUS | {"Upload-Length": "10", "Origin": "https://elsewhere.example"}
    answer = ask("POST", f"{server.url}/files/", headers=headers)
    assert (answer.status_code, answer.headers["lazypix-error"]) == (403, "forbidden")


@pytest.mark.parametrize("version", [None, "0.2.2", "2.0.0"])
def test_another_version_is_refused(server: Server, version: str | None) -> None:
    headers = {"Upload-Length": "10"} | ({"Tus-Resumable": version} if version else {})
    answer = ask("POST", f"{server.url}/files/", headers=headers)
    assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
    assert answer.headers["lazypix-error"] == "version_refused"


def test_an_upload_tells_how_far_it_is(server: Server) -> None:
    fields = {"ident": "far", "filename": "ä.jpg", "sizes": "100x80"}
    path = created(server, **fields)
    patch(server, path, 0, PICTURE[:CHUNK])
    answer = head(server, path)
    assert answer.status_code == 200
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == (str(CHUNK), str(len(PICTURE)))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["upload-metadata"] == described(**fields)["Upload-Metadata"]
    assert answer.headers["upload-expires"].endswith(" GMT")
    assert "lazypix-ident" not in answer.headers
    assert patch(server, path, CHUNK, PICTURE[CHUNK:]).status_code == 204
    # A client that missed the last answer is told, as often as it asks.
    for done in (head(server, path), patch(server, path, len(PICTURE), b"")):
        assert done.headers["lazypix-ident"] == "far"
        assert done.headers["upload-offset"] == str(len(PICTURE))
    until(lambda: len(server.get("/info/far").json()["content"]["variants"]) == 1)  # the size is made ahead


def test_the_first_piece_may_come_with_the_creation(server: Server) -> None:
    url = f"{server.url}/files/"
    headers = PIECE | {"Upload-Length": str(len(PICTURE))}
    part = ask("POST", url, headers=headers, content=PICTURE[:CHUNK])
    assert (part.status_code, part.headers["upload-offset"]) == (201, str(CHUNK))
    assert patch(server, part.headers["location"], CHUNK, PICTURE[CHUNK:]).status_code == 204
    whole = ask("POST", url, headers=headers, content=PICTURE)
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, str(len(PICTURE)))
    assert original(server, whole.headers["lazypix-ident"]) == PICTURE
    bad = ask("POST", url, headers=PIECE | {"Upload-Length": "50"}, content=b"x" * 50)
    assert (bad.status_code, bad.headers["lazypix-error"]) == (415, "unsupported_image")


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Upload-Length": str(64 * 1024 * 1024 + 1)}, 413, "over the limit"),
        ({"Upload-Length": "0"}, 400, "empty"),
        ({"Upload-Length": "-1"}, 400, "Upload-Length '-1'"),
        ({"Upload-Length": "9" * 30}, 400, "Upload-Length"),
        ({}, 400, "Upload-Length"),
        ({"Upload-Defer-Length": "1"}, 400, "Upload-Defer-Length is not accepted"),
        ({"Upload-Length": "9", "Upload-Concat": "partial"}, 400, "Upload-Concat"),
        ({"Upload-Length": "9", "Upload-Metadata": "colour cmVk"}, 400, "unknown name 'colour'"),
        ({"Upload-Length": "9", "Upload-Metadata": "ident YQ==,ident Yg=="}, 400, "given twice"),
        ({"Upload-Length": "9", "Upload-Metadata": "ident ?"}, 400, "UTF-8 text in base64"),
        ({"Upload-Length": "9", "Upload-Metadata": "filename AA=="}, 400, "UTF-8 text in base64"),
        ({"Upload-Length": "9", "Upload-Metadata": "filename /w=="}, 400, "UTF-8 text in base64"),
        ({"Upload-Length": "9"} | described(ident="a/b"), 400, "Bad ident"),
        ({"Upload-Length": "9"} | described(metadata="[]"), 400, "a JSON object"),
        ({"Upload-Length": "9"} | described(sizes="9999999x1"), 400, "9999999"),
        ({"Upload-Length": "9"} | described(sync="maybe"), 400, "sync='maybe'"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_at_once(
    server: Server, headers: dict[str, str], status: int, text: str
) -> None:
    answer = ask("POST", f"{server.url}/files/", headers=TUS | headers)
    assert answer.status_code == status, answer.text
    assert text in answer.json()["content"]
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_a_piece_that_does_not_fit_is_refused(server: Server) -> None:
    path = created(server)
    for answer, status, code in (
        (patch(server, path, 5, b"x"), 409, "offset_mismatch"),
        (patch(server, path, 0, b"x", Content_Type="image/jpeg"), 415, "wrong_media_type"),
        (patch(server, path, 0, b"x", Upload_Offset="x"), 400, "bad_request"),
        (patch(server, path, 0, PICTURE + b"x"), 413, "too_large"),
        (patch(server, path, 0, b"x", Upload_Checksum="md5 AAAA"), 400, "bad_request"),
        (patch(server, path, 0, b"x", Upload_Checksum="sha1 AAAA"), 400, "bad_request"),
        (patch(server, path, 0, b"x", Upload_Checksum=f"sha1 {'A' * 27}="), 460, "checksum_mismatch"),
        (patch(server, path, 0, b"x", Upload_Checksum=f"sha256 {'A' * 43}="), 460, "checksum_mismatch"),
        (patch(server, "/files/nothing", 0, b"x"), 404, "unknown_upload"),
    ):
        assert (answer.status_code, answer.headers["lazypix-error"]) == (status, code), answer.text
        assert answer.headers["cache-control"] == "no-store"
    assert offset(server, path) == 0
    for name in ("sha1", "sha256"):
        at = offset(server, path)
        digest = base64.b64encode(hashlib.new(name, PICTURE[at : at + CHUNK]).digest()).decode()
        assert patch(server, path, at, PICTURE[at : at + CHUNK], Upload_Checksum=f"{name} {digest}").is_success


def test_an_upload_is_given_up(server: Server) -> None:
    path = created(server)
    patch(server, path, 0, PICTURE[:CHUNK])
    assert ask("DELETE", f"{server.url}{path}", headers=TUS).status_code == 204
    assert head(server, path).status_code == 404
    assert ask("DELETE", f"{server.url}{path}", headers=TUS).status_code == 404
    assert not any(path.removeprefix("/files/") in file for file in stored_files(server.data))


def test_a_header_stands_for_methods_that_proxies_do_not_know(server: Server) -> None:
    url = server.url + created(server)
    headers = PIECE | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert ask("POST", url, headers=headers, content=PICTURE[:CHUNK]).headers["upload-offset"] == str(CHUNK)
    assert ask("POST", url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert ask("POST", url, headers=TUS | {"X-HTTP-Method-Override": "PUT"}).status_code == 405
    assert ask("POST", url, headers=TUS).status_code == 405
    allowed = ask("GET", url).headers["allow"]
    assert {"HEAD", "PATCH", "DELETE"} <= set(allowed.split(", "))


def test_an_ident_that_is_taken_is_refused_at_once(server: Server) -> None:
    ident = server.upload(jpg(quadrants()))
    answer = ask("POST", f"{server.url}/files/", headers=TUS | described(ident=ident) | {"Upload-Length": "9"})
    assert (answer.status_code, answer.headers["lazypix-error"]) == (409, "ident_taken")
