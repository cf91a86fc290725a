"""Between ASGI and `http`'s plain values: a scope becomes a `Request`, an `Answer` is sent once."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lazypix.errors import BlobMissing, LazypixError
from lazypix.faces import quoted
from lazypix.http import Answer, FileBody, Request, StreamBody, error_answer

_PIECE_BYTES = 256 * 1024
_CONDITIONS = {
    b"accept": "accept",
    b"if-match": "if_match",
    b"if-none-match": "if_none_match",
    b"if-modified-since": "if_modified_since",
    b"if-unmodified-since": "if_unmodified_since",
    b"range": "range",
    b"if-range": "if_range",
}


def request_of(scope: Scope) -> Request:
    """Read what an answer depends on out of an ASGI scope."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        field = _CONDITIONS.get(name)
        if field is not None:
            text = value.decode("latin-1")
            found[field] = f"{found[field]}, {text}" if field in found else text
    raw = scope.get("raw_path")  # not every server tells it
    path = raw.decode("latin-1") if raw else quoted(scope["path"].encode().decode("latin-1"))
    return Request(method=scope["method"], path=path, query=scope["query_string"].decode("latin-1"), **found)


class AnswerResponse(Response):
    """Sends an `Answer`, wherever Starlette wants a response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(status_code=answer.status)
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send_answer(self.answer, send, head=scope["method"] == "HEAD")


async def send_answer(answer: Answer, send: Send, *, head: bool = False) -> None:
    """Send an answer: bytes at once, a file in pieces."""
    body = b"" if head else answer.body
    if isinstance(body, FileBody):
        await _send_file(answer, body, send)
        return
    if isinstance(body, StreamBody):
        await _send_stream(answer, body, send)
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    # In pieces, so that a client which reads slowly holds one of them and not a copy of all.
    for start in range(0, len(body) - _PIECE_BYTES, _PIECE_BYTES):
        await send({"type": "http.response.body", "body": body[start : start + _PIECE_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": body[_last_piece(len(body)) :]})


def _last_piece(size: int) -> int:
    """Return where the last piece of a body begins."""
    return max(0, size - 1) // _PIECE_BYTES * _PIECE_BYTES


async def _send_file(answer: Answer, body: FileBody, send: Send) -> None:
    try:  # before the headers are out: a deletion may have been faster
        file: BinaryIO = await asyncio.to_thread(body.path.open, "rb")
    except OSError:
        await send_answer(error_answer(BlobMissing("The image is not in the store any more; ask again")), send)
        return
    try:
        await asyncio.to_thread(file.seek, body.start)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        left = body.length
        while left > 0:
            piece = await asyncio.to_thread(file.read, min(left, _PIECE_BYTES))
            if not piece:
                raise OSError(f"{body.length - left} of {body.length} bytes were there")
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
    finally:
        file.close()


async def _send_stream(answer: Answer, body: StreamBody, send: Send) -> None:
    pieces = body.read(body.start, body.length)
    try:
        piece = await asyncio.to_thread(next, pieces, b"")  # before the headers are out: the store may fail
    except LazypixError as error:
        await send_answer(error_answer(error), send)
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    left = body.length - len(piece)
    while left > 0:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = await asyncio.to_thread(next, pieces, b"")
        if not piece:  # the connection is broken off, so that nobody takes a part for the whole
            raise OSError(f"{body.length - left} of {body.length} bytes were there")
        left -= len(piece)
    await send({"type": "http.response.body", "body": piece})
