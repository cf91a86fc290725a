"""A real HTTP server on loopback that keeps what it was sent, and answers as it is told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.waiting import until


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    reached: str
    """The address of this machine that it was sent to."""


Answer = Callable[[BaseHTTPRequestHandler, Received], None]


@dataclass(slots=True, kw_only=True)
class Receiver:
    """What the server has got so far, and how it answers."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 200 when there is none left."""
    answer: Answer | None = None
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def wait_for(self, number: int, seconds: float = 30) -> list[Received]:
        """Wait until so many requests have come, and return them."""
        until(lambda: len(self.requests) >= number, seconds, lambda: f"only these came: {self.requests}")
        return list(self.requests)


@contextmanager
def receiving(*, certificate: Path | None = None, address: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    """Run a receiver until the end of the block; with a certificate (and its key, in one file) over TLS."""
    receiver = Receiver(scheme="https" if certificate else "http")

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(
                method=self.command, target=self.path, headers=headers, body=body,
                reached=self.connection.getsockname()[0],
            )  # fmt: skip
            receiver.requests.append(received)
            if receiver.answer is not None:
                receiver.answer(self, received)
                return
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST = _take  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # clients go away in some tests
            pass

    server = Server((address, port), Handler)
    server.daemon_threads = False
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="receiver")
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
