"""uvicorn's HTTP/1.1 with two additions: heads of requests are bounded, and hits from memory are answered at once.

An answer that lies in memory needs no task, no ASGI messages and no checks of each header; leaving them out makes
a hit twice as fast (docs/performance.md). Everything else goes uvicorn's way. This builds on methods of uvicorn's
protocol class that are not documented for it, so its version is pinned closely.
"""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lazypix.http import Answer, Headers, envelope

MOST_HEAD_BYTES = 32 * 1024
"""For the request line and all headers together; longer ones are refused while they are received."""
HEAD_DEADLINE_S = 15.0
"""For the head of a request, from when it began; for the first one, from when the connection was made."""
_AT_ONCE_BYTES = 256 * 1024


class App(Protocol):
    """What the protocol wants of an application besides ASGI."""

    def at_once(self, scope: Any) -> Answer | None:
        """Return the answer to a request if it lies in memory. Called on the event loop; must not block."""
        ...


class ImageProtocol(HttpToolsProtocol):
    """One connection."""

    app: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._app: App = self.app
        # Of the last piece that was received, and of all since the parser last told of something: while a head, a
        # trailer or an extension of a chunk is incomplete, the parser keeps it and tells nothing.
        self._piece_bytes = self._unseen_bytes = 0
        self._in_head = False
        self._head_too_large = False
        self._deadline: TimerHandle | None = None

    # --- the head of a request -------------------------------------------------------------------------------

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._piece_bytes = len(data)
        self._unseen_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unseen_bytes > MOST_HEAD_BYTES:
            self._refuse_head()
        elif self._in_head and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._unseen_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._end_deadline()
        # Longer pieces have a body in them, or more requests; seldom a head that is too large and came at once.
        if max(self._piece_bytes, self._unseen_bytes) > MOST_HEAD_BYTES and self._counted() > MOST_HEAD_BYTES:
            self._head_too_large = True
            raise ValueError("the head is too large")  # ends the parsing; uvicorn calls `send_400_response`
        self._unseen_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unseen_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if self._head_too_large:
            self._refuse_head()
        else:
            self._end_with(400, msg)

    def _counted(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._end_with(431, f"The request's line and headers are over the limit of {MOST_HEAD_BYTES} bytes")

    def _head_is_late(self) -> None:
        self._deadline = None
        if not self._in_head:  # nothing came at all
            self.transport.close()
        elif self._is_answering():  # this one was sent ahead
            self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)
        else:
            self._end_with(408, f"The request's headers were not received within {HEAD_DEADLINE_S:g} seconds")

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_with(self, status: int, text: str) -> None:
        """Answer what never became a request, and close the connection."""
        begun = self._is_answering() and (self.cycle.response_started or self.pipeline)
        if not begun:
            if self.cycle is not None:
                self.cycle.disconnected = True  # what the application may still send goes nowhere
                self.cycle.message_event.set()
            self._write(envelope(status, text, (b"connection", b"close")))
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # --- hits from memory ------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self._answered_at_once(cycle):
            super()._start_asgi_task(cycle, app)

    def _answered_at_once(self, cycle: RequestResponseCycle) -> bool:
        if self.pipeline or self.flow.write_paused or not cycle.keep_alive or self.access_log:
            return False
        answer = self._app.at_once(cycle.scope)
        if answer is None or not isinstance(answer.body, bytes) or len(answer.body) > _AT_ONCE_BYTES:
            return False
        cycle.response_started = cycle.response_complete = True
        self._write(answer)
        cycle.on_response()
        return True

    def _write(self, answer: Answer) -> None:
        common = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        status, rest = _head(answer.status, answer.headers)
        assert isinstance(answer.body, bytes)
        self.transport.writelines([status, common, rest, answer.body])


@lru_cache(maxsize=4096)
def _head(status: int, headers: Headers) -> tuple[bytes, bytes]:
    """Return the status line, and the headers with the empty line after them. Source: RFC 9112, 3 to 5."""
    lines = [b"%s: %s" % header for header in headers]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise ValueError("a header has a line break")
    return b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode()), b"\r\n".join([*lines, b"", b""])
