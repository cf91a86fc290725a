"""Load generators: a raw-socket client for requests that are each made once, and wrk for one that is repeated."""

from __future__ import annotations

import re
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TIMEOUT_S = 120.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP response."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """Return the value of a header, or ""."""
        found = re.search(rb"\r\n" + name.encode() + rb": *([^\r]*)", self.head, re.IGNORECASE)
        return found[1].decode("latin-1") if found else ""


class Connection:
    """A keep-alive connection to a server on the loopback address."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting = bytearray()
        self._total = 0

    def send(self, request: bytes) -> None:
        """Send a whole request."""
        self._waiting.clear()
        self._total = 0
        self.socket.sendall(request)

    def receive_some(self) -> Reply | None:
        """Read what has come; return the reply when it is complete."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server closed the connection")
        self._waiting += piece
        if not self._total:
            end = self._waiting.find(b"\r\n\r\n")
            if end < 0:
                return None
            length = _LENGTH.search(self._waiting, 0, end)
            self._total = end + 4 + (int(length[1]) if length else 0)
        return self._reply() if len(self._waiting) >= self._total else None

    def ask(self, request: bytes) -> Reply:
        """Send a request and wait for its reply."""
        self.send(request)
        while True:
            reply = self.receive_some()
            if reply is not None:
                return reply

    def close(self) -> None:
        self.socket.close()

    def _reply(self) -> Reply:
        head, _, body = bytes(self._waiting).partition(b"\r\n\r\n")
        return Reply(status=int(head[9:12]), head=head, body=body)


def get(path: str, *headers: str) -> bytes:
    """Return the bytes of a GET request."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()


def ask(port: int, request: bytes) -> Reply:
    """Make one request on a connection of its own."""
    connection = Connection(port)
    try:
        return connection.ask(request)
    finally:
        connection.close()


def ask_each_once(port: int, requests: Sequence[bytes], *, connections: int, status: int = 200) -> float:
    """Make each request once, over some keep-alive connections; return the seconds from the first to the last byte.

    Raises:
        RuntimeError: a reply has another status.
    """
    todo = iter(requests)
    opened = [Connection(port) for _ in range(min(connections, len(requests)))]
    try:
        return _drive(opened, todo, status)
    finally:
        for connection in opened:
            connection.close()


def _drive(opened: list[Connection], todo: Iterator[bytes], status: int) -> float:
    with selectors.DefaultSelector() as selector:
        begin = time.perf_counter()
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(next(todo))
        while selector.get_map():
            ready = selector.select(_TIMEOUT_S)
            if not ready:
                raise RuntimeError(f"no reply for {_TIMEOUT_S:g} seconds")
            for key, _ in ready:
                _advance(selector, key.data, todo, status)
        return time.perf_counter() - begin


def _advance(selector: selectors.BaseSelector, connection: Connection, todo: Iterator[bytes], status: int) -> None:
    reply = connection.receive_some()
    if reply is None:
        return
    if reply.status != status:
        raise RuntimeError(f"status {reply.status} instead of {status}: {reply.body[:300]!r}")
    request = next(todo, None)
    if request is None:
        selector.unregister(connection.socket)
    else:
        connection.send(request)


def wrk(
    port: int, path: str, *, seconds: int, core: int, headers: Sequence[str] = (), connections: int = 64
) -> float:
    """Ask for one path over and over with wrk, on a core of its own; return requests a second.

    Raises:
        RuntimeError: wrk failed, or got answers that are errors.
    """
    pinned = ["taskset", "--cpu-list", str(core)]
    url = f"http://127.0.0.1:{port}{path}"
    return wrk_on(url, seconds=seconds, headers=headers, connections=connections, before=pinned)


def wrk_on(
    url: str, *, seconds: int, headers: Sequence[str] = (), connections: int = 64, before: Sequence[str] = ()
) -> float:
    """As `wrk`, on any core; `before` is put before its command line."""
    command = [*before, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    for header in headers:
        command += ["-H", header]
    command.append(url)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    if rate is None or "Non-2xx" in done.stdout:
        raise RuntimeError(f"wrk {url}: {done.stdout}")
    return float(rate[1])
