"""A real server for tests: `lazypix serve` in a process group of its own, and looks at what it stored."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.files import files_in
from tests.forked import Forked, start_module
from tests.ports import free_port
from tests.waiting import WAIT_S, until

START_S = 60.0
STOP_S = 60.0
ANSWER_S = 120.0
"""Longer than any request waits at a server that is not stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server; all its processes are one process group, whose id is `pid`."""

    port: int
    data: Path
    log: Path
    process: subprocess.Popen[bytes] | Forked

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=ANSWER_S)

    def upload(self, image: bytes, name: str = "", **fields: str) -> str:
        """Upload an image that must be taken; return its ident."""
        with self.client() as client:
            answer = client.post("/upload", files={"image": (name or "upload", image)}, data=fields)
        assert answer.status_code == 201, answer.text
        ident = answer.json()["content"]["ident"]
        assert isinstance(ident, str)
        return ident

    def get(self, target: str, **headers: str) -> httpx.Response:
        """GET a target on a connection of its own."""
        with self.client() as client:
            return client.get(target, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def picture(self, target: str, **headers: str) -> Image.Image:
        """GET an image that must be there, and decode it."""
        answer = self.get(target, **headers)
        assert answer.status_code == 200, answer.text
        picture = Image.open(io.BytesIO(answer.content))
        picture.load()
        return picture


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    """Send a request on a connection of its own."""
    return httpx.request(method, url, timeout=ANSWER_S, **options)


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that would set lazypix up, then `settings` (`queue=1`: LAZYPIX_QUEUE)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAZYPIX_")}
    return kept | {f"LAZYPIX_{name.upper()}": value for name, value in settings.items()}


def begin(data: Path, *arguments: str, **settings: str) -> Server:
    """Start a server without waiting for it. Its working directory is the folder that `data` lies in."""
    port, log = free_port(), _log_of(data)
    env = clean_environment({"renderers": "2"} | settings)
    process = start_module("lazypix", _serve(data, port, arguments), cwd=data.parent, env=env, log=log)
    return Server(port=port, data=data, log=log, process=process)


def begin_anew(data: Path, *arguments: str, **settings: str) -> Server:
    """As `begin`, in a new Python, as operators do: the kernel tells the server's own command and environment."""
    port, log = free_port(), _log_of(data)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lazypix", *_serve(data, port, arguments)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=data.parent,
            env=clean_environment({"renderers": "2"} | settings),
        )  # fmt: skip
    return Server(port=port, data=data, log=log, process=process)


def _serve(data: Path, port: int, arguments: Sequence[str]) -> list[str]:
    return ["serve", "--data", str(data), "--port", str(port), *arguments]


def _log_of(data: Path) -> Path:
    return data.parent / f"{data.name}.log"


def wait_until_ready(server: Server) -> None:
    def ready() -> bool:
        if server.process.poll() is not None:
            pytest.fail(f"the server ended with {server.process.returncode}:\n{server.log.read_text()}")
        try:
            return httpx.get(f"{server.url}/readyz", timeout=20).status_code == 200
        except httpx.TransportError:
            return False

    until(ready, START_S, lambda: f"the server did not start:\n{server.log.read_text()}")


@contextmanager
def running(data: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """Run a server; at the end it must leave no process behind, and must not have logged any traceback."""
    server = begin(data, *arguments, **settings)
    try:
        wait_until_ready(server)
        yield server
        assert "Traceback" not in server.log.read_text(), server.log.read_text()
    finally:
        stop(server)


def stop(server: Server) -> None:
    """End the server as an operator does, by SIGTERM to its first process; all others must follow."""
    try:
        if server.process.poll() is None:
            server.process.terminate()
        server.process.wait(STOP_S)
        until(lambda: not members(server.pid), 20, lambda: f"left behind: {members(server.pid)}")
    finally:
        kill(server)


def kill(server: Server) -> None:
    """SIGKILL to every process of the server; returns when all are gone."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.process.kill()  # it may not have made its group yet
    server.process.wait(STOP_S)
    until(lambda: not members(server.pid), STOP_S, lambda: f"not killed: {members(server.pid)}")


def members(group: int) -> dict[int, str]:
    """The living processes of a process group: pid and command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state not in "ZX":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def children(parent: int) -> list[int]:
    """The pids of a process' spawned children: a server process' renderers, a supervisor's server processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                ppid = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if int(ppid) == parent and "spawn_main" in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
    return sorted(found)


def peak_mib(server: Server) -> float:
    """The most memory that the server's main process ever had, MiB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


# --- what lies in the folder ------------------------------------------------------------------------------------


def stored_files(data: Path) -> set[str]:
    """All files in the store and in the place for incoming ones, temporary ones too."""
    places = (data / "images", data / "incoming")
    return {str(file.relative_to(data)) for place in places for file in files_in(place)}


def rows(data: Path) -> dict[str, str]:
    """Ident and state of all rows of the catalog, whatever the state."""
    with closing(sqlite3.connect(f"file:{data / 'catalog.sqlite'}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT ident, state FROM images"))


@contextmanager
def nothing_stored(data: Path) -> Iterator[None]:
    """Fail when files or rows have come or gone. Nothing that was asked for before may still be on its way."""
    # The answer may come before the rest of the request was thrown away.
    until(lambda: not on_their_way(data), WAIT_S, lambda: f"{on_their_way(data)}")
    before = stored_files(data), rows(data)
    yield
    until(lambda: (stored_files(data), rows(data)) == before, WAIT_S, lambda: f"{stored_files(data)} {rows(data)}")


def on_their_way(data: Path) -> set[str]:
    """The files that are being received, stored or removed."""
    return {name for name in stored_files(data) if name.startswith("incoming/") or "/." in name}


# --- below HTTP clients -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What came back over a raw socket."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def trickling(connection: socket.socket) -> Iterator[None]:
    """Send a byte now and then until the end of the block, or until the other side is gone."""
    over = threading.Event()

    def trickle() -> None:
        with suppress(OSError):
            while not over.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(WAIT_S)


def exchange(server: Server, request: bytes, *, method: str = "GET") -> RawAnswer:
    """Send bytes as they are and read one answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(request)
        return read_answer(connection, method)


def read_answer(connection: socket.socket, method: str = "GET") -> RawAnswer:
    with closing(HTTPResponse(connection, method=method)) as response:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return RawAnswer(status=response.status, headers=headers, body=response.read())


def get_raw(server: Server, target: str | bytes, *headers: str, method: str = "GET") -> RawAnswer:
    """Ask for a target that no HTTP library would send as it is."""
    path = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    return exchange(server, b"\r\n".join([*lines, *(h.encode("latin-1") for h in headers), b"", b""]), method=method)


def error_of(body: bytes) -> str:
    """The text of an error envelope, which must be one, to the letter."""
    envelope: Any = json.loads(body)
    assert list(envelope) == ["status", "content"], envelope
    assert envelope["status"] == "error"
    assert isinstance(envelope["content"], str)
    assert envelope["content"]
    return envelope["content"]


def program(name: str) -> str:
    """The path of a program the test needs. CI has it; elsewhere the test is skipped without it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        missing = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
