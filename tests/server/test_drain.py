"""Stopping gently: what is under way is finished, what is acknowledged is there, and the exit code tells."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.server.running import (
    START_S,
    STOP_S,
    Server,
    begin,
    children,
    error_of,
    kill,
    members,
    read_answer,
    rows,
    running,
    stored_files,
    wait_until_ready,
)
from tests.waiting import WAIT_S, until

from lazypix import Library

PICTURE = jpg(quadrants(300, 200))
BOUNDARY = "frontier"


@contextmanager
def begun(data: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """Run a server that the test ends."""
    server = begin(data, *arguments, **settings)
    try:
        wait_until_ready(server)
        yield server
    finally:
        kill(server)


def form(ident: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="ident"\r\n\r\n{ident}\r\n'.encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode(),
        PICTURE,
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    return b"".join(parts)


class SlowUpload:
    """An upload of which one half is sent at first."""

    def __init__(self, connection: socket.socket, ident: str) -> None:
        self._body = form(ident)
        self._connection = connection
        head = (
            f"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(self._body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 100"), "the application reads"
        connection.sendall(self._body[: len(self._body) // 2])

    def finish(self) -> tuple[int, dict[str, str], bytes]:
        self._connection.sendall(self._body[len(self._body) // 2 :])
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        answer = read_answer(self._connection, "POST")
        return answer.status, answer.headers, answer.body


@contextmanager
def slow_upload(server: Server, ident: str) -> Iterator[SlowUpload]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        yield SlowUpload(connection, ident)


def refused(server: Server) -> bool:
    """Whether nobody listens."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", server.port)) != 0


def ended(server: Server, code: int) -> None:
    assert server.process.wait(STOP_S) == code, server.log.read_text()
    until(lambda: not members(server.pid), 20, lambda: f"left behind: {members(server.pid)}")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upload_under_way_is_finished_acknowledged_and_there(tmp_path: Path, workers: str) -> None:
    with begun(tmp_path / "data", workers=workers, drain_s="60") as server:
        with (
            slow_upload(server, "slow") as upload,
            socket.create_connection(("127.0.0.1", server.port), WAIT_S) as idle,
        ):
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(idle).status == 200
            server.process.terminate()
            until(lambda: refused(server))
            assert idle.recv(1024) == b"", "connections that nothing is asked on are closed"
            status, headers, _ = upload.finish()
        assert (status, headers["connection"]) == (201, "close")
        ended(server, 0)
    assert "Traceback" not in server.log.read_text()
    with Library.open(tmp_path / "data") as library:
        assert library.original("slow") == PICTURE
    assert [name for name in stored_files(tmp_path / "data") if name.startswith("incoming")] == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_for_a_while_it_says_that_it_is_not_ready_and_answers_all_the_same(tmp_path: Path, workers: str) -> None:
    with begun(tmp_path / "data", workers=workers, drain_delay_s="600") as server:
        server.upload(PICTURE, ident="cat")
        assert server.get("/image/60x/cat.jpg").headers.get("connection") != "close"
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
            server.process.terminate()
            until(lambda: server.get("/readyz").status_code == 503)
            kept = client.get("/healthz")
            assert (kept.status_code, kept.headers["connection"]) == (200, "close"), "it was kept alive before"
        for target in ("/image/60x/cat.jpg", "/image/60x/cat.jpg", "/image/61x/cat.jpg", "/info/cat"):
            answer = server.get(target)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert "stopped" in error_of(server.get("/readyz").content)
        server.upload(PICTURE, ident="late")
    assert rows(tmp_path / "data") == {"cat": "ready", "late": "ready"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_that_while_ends_by_itself(tmp_path: Path, workers: str) -> None:
    with begun(tmp_path / "data", workers=workers, drain_delay_s="0.5") as server:
        server.process.terminate()
        ended(server, 0)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_at_the_limit_what_is_left_is_refused_and_the_exit_code_is_1(tmp_path: Path, workers: str) -> None:
    with begun(tmp_path / "data", workers=workers, drain_s="0.5") as server:
        with slow_upload(server, "slow") as upload:
            server.process.terminate()
            status, headers, body = upload.answer()
        assert (status, headers["connection"], headers["lazypix-error"]) == (503, "close", "busy")
        assert "retry-after" in headers
        assert "stopped" in error_of(body)
        ended(server, 1)
    log = server.log.read_text()
    assert "cut 1 requests after 0.5 seconds: POST /upload" in log
    assert "Traceback" not in log
    assert rows(tmp_path / "data") == {}
    assert stored_files(tmp_path / "data") == set()


def test_variants_that_are_waited_for_are_made_and_stored(tmp_path: Path) -> None:
    with begun(tmp_path / "data", drain_s="60") as server:
        server.upload(PICTURE, ident="cat")
        with ThreadPoolExecutor(8) as askers:
            renderers = children(server.pid)
            for pid in renderers:
                os.kill(pid, signal.SIGSTOP)
            answers = [askers.submit(server.get, f"/image/{width}x/cat.jpg") for width in range(50, 58)]
            until(lambda: "lazypix_queue 8.0" in server.get("/metrics").text)
            server.process.terminate()
            until(lambda: refused(server))
            for pid in renderers:
                os.kill(pid, signal.SIGCONT)
            assert [answer.result().status_code for answer in answers] == [200] * 8
        ended(server, 0)
    with Library.open(tmp_path / "data") as library:
        assert len(library.variants("cat")) == 8


@pytest.mark.parametrize(("workers", "second"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, workers: str, second: signal.Signals) -> None:
    with begun(tmp_path / "data", workers=workers, drain_s="600") as server, slow_upload(server, "slow"):
        server.process.terminate()
        until(lambda: refused(server))
        os.kill(server.pid, second)
        ended(server, 1)
    with running(tmp_path / "data"):
        assert rows(tmp_path / "data") == {}
        assert stored_files(tmp_path / "data") == set()


def test_a_signal_to_the_whole_group_is_one_signal(tmp_path: Path) -> None:
    with begun(tmp_path / "data", workers="2", drain_s="60") as server:
        with slow_upload(server, "slow") as upload:
            os.killpg(server.pid, signal.SIGINT)  # as a terminal does
            until(lambda: refused(server))
            assert upload.finish()[0] == 201
        ended(server, 0)
    assert rows(tmp_path / "data") == {"slow": "ready"}


def test_workers_are_restarted_one_after_the_other_without_an_error(tmp_path: Path) -> None:
    with running(tmp_path / "data", workers="2", drain_s="30") as server:
        server.upload(PICTURE, ident="cat")
        before = workers_of(server)
        assert len(before) == 2
        stop = threading.Event()

        def ask() -> list[int]:
            found = []
            while not stop.is_set():
                with server.client() as client:  # a connection of its own
                    found.append(client.get("/image/60x/cat.jpg").status_code)
                    found.append(client.get("/readyz").status_code)
            return found

        with ThreadPoolExecutor(2) as askers, slow_upload(server, "slow") as upload:
            answers = [askers.submit(ask) for _ in range(2)]
            try:
                os.kill(server.pid, signal.SIGHUP)
                until(lambda: len(workers_of(server) - before) >= 1)
                assert upload.finish()[0] == 201
                until(lambda: len(workers_of(server)) == 2 and not workers_of(server) & before, 2 * START_S)
            finally:
                stop.set()  # else a failure would be waited for without end
            found = [status for answer in answers for status in answer.result()]
        assert set(found) == {200}
        assert server.get("/info/slow").status_code == 200


def test_workers_that_are_still_starting_are_restarted_too(tmp_path: Path) -> None:
    server = begin(tmp_path / "data", workers="2")
    try:
        until(lambda: len(workers_of(server)) == 2, START_S)
        before = workers_of(server)
        os.kill(late := max(before), signal.SIGSTOP)
        wait_until_ready(server)
        os.kill(server.pid, signal.SIGHUP)
        os.kill(late, signal.SIGCONT)
        until(lambda: len(workers_of(server)) == 2 and not workers_of(server) & before, 2 * START_S)
        server.process.terminate()
        ended(server, 0)
    finally:
        kill(server)
    assert "ended with exit code" not in server.log.read_text()


def workers_of(server: Server) -> set[int]:
    return set(children(server.pid))


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path / "data", workers="2") as server:
        for number in (signal.SIGKILL, signal.SIGSEGV):
            before = workers_of(server)
            os.kill(min(before), number)
            until(lambda: len(workers_of(server)) == 2 and workers_of(server) != before, START_S)  # noqa: B023
        assert server.get("/readyz").status_code == 200
        assert "another one is started" in server.log.read_text()
