"""A TCP proxy that breaks connections as it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Break a connection when so many bytes have gone one way."""

    way: Literal["there", "back"]
    after: int


@dataclass(slots=True, kw_only=True)
class Flaky:
    """What breaks: one cut for each of the next connections; those after them are left alone."""

    port: int
    cuts: list[Cut | None] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def flaky(upstream: int) -> Iterator[Flaky]:
    """Run a proxy in front of a port until the end of the block."""
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = Flaky(port=listening.getsockname()[1])
    threads: list[threading.Thread] = []
    open_now: list[socket.socket] = []

    def begin(target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        threads.append(thread)
        thread.start()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", upstream))
                open_now.extend((client, server))
                proxy.connections += 1
                cut = proxy.cuts.pop(0) if proxy.cuts else None
                begin(_pass_on, client, server, cut.after if cut and cut.way == "there" else None)
                begin(_pass_on, server, client, cut.after if cut and cut.way == "back" else None)

    begin(accept)
    try:
        yield proxy
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for each in open_now:
            _break(each)
        for thread in threads:
            thread.join(20)
        for each in open_now:
            each.close()


def _pass_on(source: socket.socket, target: socket.socket, left: int | None) -> None:
    """Pass bytes on until the source ends, or `left` of them have gone; then break both sides."""
    with suppress(OSError):
        while left is None or left > 0:
            data = source.recv(65536 if left is None else min(left, 65536))
            if not data:
                break
            target.sendall(data)
            if left is not None:
                left -= len(data)
    _break(source)
    _break(target)


def _break(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
