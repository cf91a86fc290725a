"""What `lazypix nginx` prints for several servers, in a real nginx in front of two real ones on one library."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engine.pictures import encoded, quadrants
from tests.ports import free_port
from tests.server.nginx import nginx
from tests.server.running import ANSWER_S, Server, begin, clean_environment, kill, running, wait_until_ready
from tests.waiting import WAIT_S, until

KEY = "a-key-of-enough-characters"
AUTHORISED = {"authorization": f"Bearer {KEY}"}
SETTINGS = {"api_keys": KEY, "urls": "open", "access_log": "true", "renderers": "1"}
PICTURE = encoded(quadrants())


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """nginx with our configuration."""

    port: int
    servers: tuple[Server, Server]

    def get(self, target: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{target}", timeout=ANSWER_S)

    def upload(self, ident: str, **more: Any) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/upload", files={"image": (f"{ident}.png", PICTURE)}, data={"ident": ident},
            headers=AUTHORISED, timeout=ANSWER_S, **more,
        )  # fmt: skip


def printed(data: Path, port: int, *upstreams: str) -> str:
    named = [word for upstream in upstreams for word in ("--upstream", upstream)]
    done = subprocess.run(
        [sys.executable, "-m", "lazypix", "nginx", "--data", data, "--listen", f"127.0.0.1:{port}",
         "--cache-dir", str(data.parent / "cache"), *named],
        cwd=data.parent, env=clean_environment(SETTINGS), capture_output=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@contextmanager
def fronted(folder: Path) -> Iterator[Front]:
    """Run two servers on one folder behind nginx; either may be killed in the block."""
    data, logs = folder / "data", folder / "second"
    logs.mkdir()
    with running(data, **SETTINGS) as one:
        two = second(data, logs)
        try:
            wait_until_ready(two)
            port = free_port()
            text = printed(data, port, *(f"127.0.0.1:{server.port}" for server in (one, two)))
            with nginx(folder, text, port):
                yield Front(port=port, servers=(one, two))
        finally:
            kill(two)


def second(data: Path, logs: Path) -> Server:
    """Start another server on the same folder."""
    (logs / "data").symlink_to(data)
    return begin(logs / "data", **SETTINGS)


def asked(server: Server, words: str) -> int:
    return server.log.read_text().count(words)


def test_both_are_asked(tmp_path: Path) -> None:
    with fronted(tmp_path) as front:
        for number in range(4):
            assert front.upload(f"pic{number}").status_code == 201
        for server in front.servers:
            until(lambda s=server: asked(s, '"POST /upload') == 2)  # type: ignore[misc]
        for number in range(4):
            assert front.get(f"/image/pic{number}.png").content == PICTURE
        for server in front.servers:
            until(lambda s=server: asked(s, '"GET /image/') == 2)  # type: ignore[misc]


def test_one_that_was_killed_is_missed_by_nobody(tmp_path: Path) -> None:
    with fronted(tmp_path) as front:
        assert front.upload("pic").status_code == 201
        stop, statuses = threading.Event(), Counter[int]()

        def ask() -> None:
            while not stop.is_set():
                statuses[front.get("/info/pic").status_code] += 1  # which nginx does not cache

        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(ask) for _ in range(3)]
            try:
                until(lambda: statuses[200] > 20, WAIT_S)
                before = statuses[200]
                kill(front.servers[1])
                stored = [front.upload(f"later{number}").status_code for number in range(6)]
                until(lambda: statuses[200] > before + 20, WAIT_S)
            finally:
                stop.set()  # else a failure would be waited for without end
            for one in asking:
                one.result()
        assert stored == [201] * 6
        assert set(statuses) == {200}


def test_one_that_is_back_is_asked_at_once_when_the_other_goes(tmp_path: Path) -> None:
    with fronted(tmp_path) as front:
        one, two = front.servers
        kill(two)
        assert front.upload("pic").status_code == 201
        for number in range(6):  # by now the one that was killed rests
            assert front.get(f"/image/1{number}x/pic.png").status_code == 200
        again = Server(port=two.port, data=two.data, log=two.log, process=restarted(two))
        try:
            wait_until_ready(again)
            kill(one)
            assert front.get("/image/pic.png").content == PICTURE, "it rests no more, or is tried all the same"
            assert front.upload("second").status_code == 201
        finally:
            kill(again)
        away = front.get("/image/20x/pic.png")
        assert away.status_code == 502
        assert "try again later" in away.json()["content"]


def restarted(server: Server) -> subprocess.Popen[bytes]:
    """Start a server anew on its port."""
    command = [sys.executable, "-m", "lazypix", "serve", "--data", str(server.data), "--port", str(server.port)]
    with server.log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, cwd=server.data.parent,
            env=clean_environment(SETTINGS),
        )  # fmt: skip


class Half:
    """A server that takes requests, hangs up in the middle of each, and counts them."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.taken: list[bytes] = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            with connection:
                connection.settimeout(WAIT_S)
                head = connection.recv(65_536)
            if not head:
                return
            self.taken.append(head.split(b" ")[0])

    def close(self) -> None:
        """End it with a connection that says nothing."""
        socket.create_connection(self.listening.getsockname()).close()
        self.thread.join(WAIT_S)
        self.listening.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_reads_are_asked_again_after_they_were_sent(tmp_path: Path, method: str) -> None:
    first, second = Half(), Half()
    data = tmp_path / "data"
    port = free_port()
    text = printed(data, port, first.address, second.address)
    health = "location = /healthz { return 200; }\n    location / {"
    try:
        with nginx(tmp_path, text.replace("location / {", health), port):
            body = {"content": b"x" * 100} if method == "POST" else {}
            answer = httpx.request(method, f"http://127.0.0.1:{port}/upload", timeout=ANSWER_S, **body)  # type: ignore[arg-type]
        assert answer.status_code == 502
    finally:
        first.close()
        second.close()
    taken = first.taken + second.taken
    if method == "POST":
        assert taken == [b"POST"], "an upload that was sent is not sent again"
    else:
        assert set(taken) == {b"GET"}
        assert first.taken
        assert second.taken
