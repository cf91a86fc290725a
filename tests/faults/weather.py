"""A TCP proxy between lazypix and a real server, which breaks the connection between them on purpose."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Weather = Literal["fair", "down", "hanging", "slow", "errors", "cut", "flipped"]
"""fair: everything passes. down: connections are refused. hanging: they are taken, and nothing comes. slow: each piece
waits a quarter of a second. errors: HTTP 500 at once. cut: an answer with a long body ends in the middle of it.
flipped: in an answer with a long body one bit is another."""

_PIECE = 65_536
_LONG = 4096
_SLOW_S = 0.25
_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Listens on a port of its own, and forwards to another one as the weather is."""

    def __init__(self, target: int) -> None:
        self.weather: Weather = "fair"
        self._target = target
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def change(self, weather: Weather) -> None:
        """Change the weather; what is connected is broken off."""
        self.weather = weather
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._ending.set()
        self.change("down")
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ending.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            if self.weather == "down":
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        weather = self.weather
        self._open.add(client)
        try:
            with client, suppress(OSError):
                if weather == "hanging":
                    self._ending.wait(60)
                elif weather == "errors":
                    client.recv(_PIECE)
                    client.sendall(_ERROR)
                    client.shutdown(socket.SHUT_WR)
                    client.settimeout(1)
                    while client.recv(_PIECE):  # so that the answer is not lost with what was not read
                        pass
                else:
                    self._forward(client, weather)
        finally:
            self._open.discard(client)

    def _forward(self, client: socket.socket, weather: Weather) -> None:
        with socket.create_connection(("127.0.0.1", self._target), 10) as server:
            self._open.add(server)
            try:
                while not self._ending.is_set():
                    for side in select.select([client, server], [], [], 0.1)[0]:
                        data = side.recv(_PIECE)
                        if not data:
                            return
                        if side is client:
                            server.sendall(data)
                        elif not self._back(client, data, weather):
                            return
            finally:
                self._open.discard(server)

    def _back(self, client: socket.socket, data: bytes, weather: Weather) -> bool:
        """Send a piece of an answer to the client; return whether the connection goes on."""
        if weather == "slow":
            self._ending.wait(_SLOW_S)
        if len(data) > _LONG and weather == "cut":
            client.sendall(data[: len(data) // 2])
            return False
        if len(data) > _LONG and weather == "flipped":
            middle = len(data) - 1000
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        client.sendall(data)
        return True


@contextmanager
def weather_before(target: int) -> Iterator[Proxy]:
    """Run a proxy before a port of this machine."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.stop()
