"""Connections that lead where the rules allow: the address is checked when it is connected to, and not before.

A name is looked up once for a connection, every address that it has is checked, and a checked one is connected to. So
a name that has another address the next time (DNS rebinding) leads nowhere; and TLS still asks for the name's
certificate.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
from httpcore import SOCKET_OPTION, NetworkBackend, NetworkStream, SyncBackend

from lazypix.outbound.rules import Rules

LookUp = Callable[[str, int, float], list[str]]


class Deadline:
    """A moment by which something must be done."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def within(self, seconds: float | None) -> float:
        """Return how many seconds something may take, at most `seconds`.

        Raises:
            httpcore.TimeoutException: none is left.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it took too long in all")
        return left if seconds is None else min(left, seconds)


class GuardedBackend(NetworkBackend):
    """Connects for one request, which must be over by the deadline."""

    def __init__(self, rules: Rules, deadline: Deadline, look_up: LookUp) -> None:
        self._rules = rules
        self._deadline = deadline
        self._look_up = look_up
        self._sockets = SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        connecting = Deadline(self._deadline.within(timeout))
        addresses = self._look_up(host, port, connecting.within(None))
        for address in addresses:  # all of them before the first: one that is refused says what the name is for
            self._rules.check_address(host, port, address)
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(
                    address, port, connecting.within(None), local_address, socket_options
                )
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure or httpcore.ConnectError(f"{host} has no address")


class _TimedStream(NetworkStream):
    """A connection whose every step must be over by the deadline: a peer that drips does not get around it."""

    def __init__(self, stream: NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.within(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.within(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.within(timeout))
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def look_up(
    host: str, port: int, seconds: float, *, resolve: Callable[..., list[Any]] = socket.getaddrinfo
) -> list[str]:
    """Return the addresses that a host has, each once, in the order in which to try them.

    Raises:
        httpcore.ConnectError: it has none.
        httpcore.ConnectTimeout: its name server does not answer.
    """
    found: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            infos = resolve(host, port, type=socket.SOCK_STREAM)
            found.put(list(dict.fromkeys(str(info[4][0]) for info in infos)))
        except (OSError, UnicodeError) as error:
            found.put(error)

    # In a thread, because the system's resolver knows no deadline; it ends by itself.
    threading.Thread(target=ask, name="lazypix-look-up", daemon=True).start()
    try:
        addresses = found.get(timeout=seconds)
    except queue.Empty:
        raise httpcore.ConnectTimeout(f"{host} was not looked up within {seconds:.1f} seconds") from None
    if isinstance(addresses, Exception):
        raise httpcore.ConnectError(f"{host} has no address")
    return addresses
