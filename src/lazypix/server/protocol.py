"""uvicorn's HTTP/1.1 with four additions.

Heads of requests are bounded. Hits from memory are answered at once: they need no task, no ASGI messages and no
checks of each header, and leaving these out makes a hit twice as fast (docs/performance.md). And a connection on
which a request was refused before its body had come is closed only when the client can have read why. While the
server drains, what has begun to arrive is answered, and every answer ends its connection.

Everything else goes uvicorn's way. This builds on methods of uvicorn's protocol class that are not documented for
it, so its version is pinned closely.
"""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle, Transport
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lazypix.http import Answer, Headers, envelope

MOST_HEAD_BYTES = 32 * 1024
"""For the request line and all headers together; longer ones are refused while they are received."""
HEAD_DEADLINE_S = 15.0
"""For the head of a request, from when it began; for the first one, from when the connection was made."""
LINGER_S = 30.0
"""For a client that still sends what is not wanted any more, before the connection is closed for good."""
_FIRST_REQUEST_S = 1.0
_LOOK_S = 0.1
_UNREAD_BODY_BYTES = 256 * 1024 * 1024
_UNREAD_HEAD_BYTES = 1024 * 1024
_AT_ONCE_BYTES = 256 * 1024


class App(Protocol):
    """What the protocol wants of an application besides ASGI."""

    is_draining: bool
    """Whether every answer ends its connection."""

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
        self._head_bytes = 0  # of all pieces in which the head lies: at least as long as it is
        self._in_head = False
        self._begun: RequestResponseCycle | None = None  # uvicorn's `cycle` is the last that was received
        self._head_too_large = False
        self._deadline: TimerHandle | None = None
        self._lingers: TimerHandle | None = None
        self._unread_bytes = 0  # how much may come yet while it lingers

    # --- the head of a request -------------------------------------------------------------------------------

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        if self._lingers is not None:
            self._lingers.cancel()
        if self._begun is not None:  # others were sent ahead of its answer: it would write to nobody
            self._begun.disconnected = True
            self._begun.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers is not None:
            self._unread_bytes -= len(data)
            if self._unread_bytes < 0:
                self.transport.close()
            return
        self._piece_bytes = len(data)
        self._unseen_bytes += len(data)
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._lingers is not None:
            return
        if self._unseen_bytes > MOST_HEAD_BYTES:
            self._refuse_head()
        elif self._in_head and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._unseen_bytes = 0
        self._head_bytes = self._piece_bytes
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._end_deadline()
        # Longer pieces have a body in them, or more requests; seldom a head that is too large and came at once.
        if self._head_bytes > MOST_HEAD_BYTES and self._counted() > MOST_HEAD_BYTES:
            self._head_too_large = True
            raise ValueError("the head is too large")  # ends the parsing; uvicorn calls `send_400_response`
        self._unseen_bytes = 0
        super().on_headers_complete()
        if not self.cycle.keep_alive:
            self.cycle.transport = _Closing(self.transport, self.cycle, self)  # type: ignore[assignment]

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
        # It may be here, and we who stood still: then it is read first.
        self._deadline = self.loop.call_later(_LOOK_S, self._give_up_head)

    def _give_up_head(self) -> None:
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
        if begun:
            self.transport.close()
        else:
            if self.cycle is not None:
                self.cycle.disconnected = True  # what the application may still send goes nowhere
                self.cycle.message_event.set()
            self._write(envelope(status, text, (b"connection", b"close")))
            self.linger(_UNREAD_HEAD_BYTES)

    def linger(self, most_bytes: int = _UNREAD_BODY_BYTES) -> None:
        """Close, but let the client send on for a while: what is still underway is thrown away.

        To close at once would have the system reset the connection as soon as more comes, and a reset throws away
        what the client has not read yet: the answer. Source: RFC 9112, section 9.6.
        """
        if self._lingers is not None or self.transport.is_closing():
            return
        self._end_deadline()
        self._unread_bytes = most_bytes
        self._lingers = self.loop.call_later(LINGER_S, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    # --- draining --------------------------------------------------------------------------------------------

    @property
    def is_lingering(self) -> bool:
        """Whether all is answered, and only the client is still sending."""
        return self._lingers is not None

    @property
    def is_at_work(self) -> bool:
        """Whether a request is being received or answered."""
        return self._in_head or self._is_answering()

    def shutdown(self) -> None:
        """Close when nothing is under way; else the next answer closes (`is_draining`)."""
        if self._lingers is not None:
            self.transport.close()
        elif self._is_answering():
            self.cycle.keep_alive = False
            self.cycle.transport = _Closing(self.transport, self.cycle, self)  # type: ignore[assignment]
        elif not self._in_head:
            # A client that has just connected is about to ask.
            self.loop.call_later(0 if self.cycle is not None else _FIRST_REQUEST_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self.is_at_work and self._lingers is None:
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # --- hits from memory ------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._app.is_draining:
            cycle.keep_alive = False
        if not self._answered_at_once(cycle):
            self._begun = cycle
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


class _Closing:
    """What a request that ends its connection has for a transport: closes gently while its body is still underway."""

    def __init__(self, transport: Transport, cycle: RequestResponseCycle, protocol: ImageProtocol) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self._transport = transport
        self._cycle = cycle
        self._protocol = protocol

    def close(self) -> None:
        if self._cycle.more_body and self._cycle.response_complete:
            self._protocol.linger()
        else:
            self._transport.close()
