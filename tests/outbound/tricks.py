"""A real HTTP server that plays every trick on who downloads from it, and a canary at an address that is forbidden.

The server is at 127.0.0.1, the canary at 127.0.0.2, at the same port: rules that allow the one refuse the other for
its address alone.
"""

from __future__ import annotations

import gzip
import socket
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from lazypix.outbound.rules import Rules

CANARY = "127.0.0.2"
DRIP_S = 0.02

Play = Callable[["Tricks", socket.socket, str], None]
"""Answers one request: over the connection that it came on, whose target is given."""


@dataclass(slots=True, kw_only=True)
class Tricks:
    """The running server, and what it saw."""

    port: int
    plays: dict[str, Play]
    """By path."""
    heads: list[str] = field(default_factory=list)
    """Of the requests, whole, as they came."""
    canary: list[str] = field(default_factory=list)
    """Who connected to the forbidden address."""
    over: threading.Event = field(default_factory=threading.Event)
    broken_off: threading.Event = field(default_factory=threading.Event)
    """Set when a client went away in the middle of an answer that had no end."""

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def rules(self) -> Rules:
        """Rules by which the server may be reached, and the canary may not."""
        return Rules.of(["127.0.0.1"], [self.port])

    @property
    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]


@dataclass(slots=True)
class Names:
    """Names and their addresses; each look-up takes the next answer, the last one stays."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int, seconds: float) -> list[str]:
        self.asked.append(host)
        given = self.answers.get(host, [[host]])
        return given.pop(0) if len(given) > 1 else given[0]


@contextmanager
def playing(plays: dict[str, Play]) -> Iterator[Tricks]:
    """Run the server and the canary until the end of the block."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while head := _head(self.request):
                    tricks.heads.append(head)
                    target = head.split(" ")[1]
                    tricks.plays[target.partition("?")[0]](tricks, self.request, target)

    class Canary(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            tricks.canary.append(self.client_address[0])

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    tricks = Tricks(port=server.server_address[1], plays=plays)
    canary = Server((CANARY, tricks.port), Canary)
    threads = [
        threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.02}, name="tricks")
        for each in (server, canary)
    ]
    for thread in threads:
        thread.start()
    try:
        yield tricks
    finally:
        tricks.over.set()
        for each in (server, canary):
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join(10)


def _head(connection: socket.socket) -> str:
    """Read the head of a request; empty: there is none."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        head += byte
    return head.decode("latin-1")


# --- what can be played -----------------------------------------------------------------------------------------


def raw(*pieces: bytes) -> Play:
    """Send bytes as they are, and close."""

    def play(tricks: Tricks, connection: socket.socket, target: str) -> None:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_RDWR)

    return play


def answer(body: bytes, *headers: str, status: str = "200 OK") -> Play:
    """Answer properly."""
    return raw(head(f"Content-Length: {len(body)}", *headers, status=status), body)


def head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def redirect(location: str, status: str = "302 Found") -> Play:
    """Redirect; `{port}` in the location is the server's own."""

    def play(tricks: Tricks, connection: socket.socket, target: str) -> None:
        to = location.replace("{port}", str(tricks.port))
        answer(b"", f"Location: {to}", status=status)(tricks, connection, target)

    return play


def without_end(beginning: bytes, piece: bytes, *, slowly: bool = False) -> Play:
    """Send a beginning, and then the same piece again and again: as fast as can be, or one a while."""

    def play(tricks: Tricks, connection: socket.socket, target: str) -> None:
        try:
            connection.sendall(beginning)
            while not tricks.over.wait(DRIP_S if slowly else 0):
                connection.sendall(piece)
        except OSError:
            tricks.broken_off.set()
            raise

    return play


def announced(length: int, body: bytes) -> Play:
    """Announce another length than comes, and close after the body."""
    return raw(head(f"Content-Length: {length}"), body)


def compressed(body: bytes, encoding: str = "gzip") -> bytes:
    """Compress a body as the encoding says."""
    return zlib.compress(body) if encoding == "deflate" else gzip.compress(body)


def bomb(size: int) -> bytes:
    """Return gzip data of zeros, a thousandth of this size."""
    deflating = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    return b"".join(deflating.compress(zeros) for _ in range(size >> 20)) + deflating.flush()
