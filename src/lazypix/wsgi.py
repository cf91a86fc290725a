"""The WSGI face: an environ becomes a `Request`, an `Answer` is sent once. Source: PEP 3333."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import chain
from typing import Any, BinaryIO
from urllib.parse import unquote

from lazypix.delivery import Delivery
from lazypix.errors import BlobMissing, LazypixError
from lazypix.faces import BROKEN, below, besides_images, decoded, is_for_image, quoted
from lazypix.http import Answer, FileBody, Request, StreamBody, error_answer

log = logging.getLogger("lazypix.wsgi")

StartResponse = Callable[..., Any]
_PIECE_BYTES = 256 * 1024
_CONDITIONS = {
    "HTTP_ACCEPT": "accept",
    "HTTP_IF_MATCH": "if_match",
    "HTTP_IF_NONE_MATCH": "if_none_match",
    "HTTP_IF_MODIFIED_SINCE": "if_modified_since",
    "HTTP_IF_UNMODIFIED_SINCE": "if_unmodified_since",
    "HTTP_RANGE": "range",
    "HTTP_IF_RANGE": "if_range",
}
# What servers tell of the target as it was received, which PEP 3333 does not ask of them.
_RAW_TARGETS = ("RAW_URI", "REQUEST_URI")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class WsgiApp:
    """A WSGI application that serves the images of a library, and nothing else, below `mount`.

    `mount` is a path such as `/media` that stands in `PATH_INFO`; a server or framework that moves it into
    `SCRIPT_NAME` needs none. Safe to use from many threads; blocks while a variant is made.
    """

    def __init__(self, delivery: Delivery, mount: str = "") -> None:
        self._delivery = delivery
        self._mount = mount.rstrip("/")

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return start(self.answer(environ), environ, start_response)

    def answer(self, environ: Mapping[str, Any]) -> Answer:
        """Answer a request; errors become answers."""
        request = request_of(environ, self._mount)
        if not is_for_image(request.method, request.path):
            return besides_images(request.method, request.path)
        return answer_image(self._delivery, request)


def answer_image(delivery: Delivery, request: Request) -> Answer:
    """Answer a request for an image; blocks while a variant is made. Errors become answers, mistakes of ours too."""
    try:
        answer = delivery.answer(request)
    except Exception:
        log.exception("an image could not be answered")
        return BROKEN
    if answer.status >= 500:
        log.warning("%s was answered with %d", request.path, answer.status)
    return answer


def request_of(environ: Mapping[str, Any], mount: str = "") -> Request:
    """Read what an answer depends on out of a WSGI environ; the path is what stands below `SCRIPT_NAME` and `mount`.

    It is the path as it was received where the server tells; else `PATH_INFO`, quoted as our own addresses are. A
    path that is not below `mount` is empty.
    """
    given = {field: environ[name] for name, field in _CONDITIONS.items() if name in environ}
    path = below(_path(environ), mount)
    return Request(
        method=environ["REQUEST_METHOD"], path="" if path is None else path, query=environ.get("QUERY_STRING", ""),
        **given,
    )  # fmt: skip


def _path(environ: Mapping[str, Any]) -> str:
    told, script = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
    for name in _RAW_TARGETS:
        raw = _path_of(environ.get(name, ""))
        for prefix in (script, ""):  # what a proxy took away may be named in SCRIPT_NAME all the same
            rest = below(raw, prefix)
            # Believed only when it is what the server says, too: middleware may have sent the request elsewhere.
            if rest is not None and told in _readings(rest):
                return rest
    return quoted(told)


def _readings(raw: str) -> tuple[str, ...]:
    """Return what servers make of a raw path: some drop slashes at its beginning, Werkzeug's what is not UTF-8."""
    replaced = unquote(raw, errors="replace").encode("utf-8", "replace").decode("latin-1")
    return decoded(raw), decoded(f"/{raw.lstrip('/')}"), replaced


def _path_of(target: str) -> str:
    """Return the path of a request target, which may be absolute. Source: RFC 9112, 3.2."""
    path = target.partition("?")[0]
    if path.startswith("/") or "://" not in path:
        return path
    _, slash, rest = path.partition("://")[2].partition("/")
    return slash + rest


def start(answer: Answer, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Begin the response, and return its body, which the server closes."""
    answer, body = opened(answer, head=environ["REQUEST_METHOD"] == "HEAD")
    start_response(status_line(answer.status), text_headers(answer))
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(body, FilePieces) and wrapper is not None and body.is_all_that_follows():
        return wrapper(body.file, _PIECE_BYTES)  # type: ignore[no-any-return]  # the server's own
    return body


def opened(answer: Answer, *, head: bool = False) -> tuple[Answer, Iterable[bytes]]:
    """Return an answer and its body in pieces; a body that has a method `close` wants to be closed.

    A file or store that fails is seen before anything is sent: another answer comes back then.
    """
    body = b"" if head else answer.body
    try:
        if isinstance(body, FileBody):
            return answer, FilePieces(body)
        if isinstance(body, StreamBody):
            return answer, StreamPieces(body)
    except LazypixError as error:
        return opened(error_answer(error))
    return answer, (body,) if body else ()


def status_line(status: int) -> str:
    """Return a status as WSGI writes it."""
    return f"{status} {_REASONS.get(status, 'Unknown')}"


def text_headers(answer: Answer) -> list[tuple[str, str]]:
    """Return an answer's headers as WSGI writes them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]


class FilePieces:
    """A part of a file, in pieces; open from the beginning, so that a deletion cannot come in between."""

    def __init__(self, body: FileBody) -> None:
        """Open the file.

        Raises:
            BlobMissing: it is gone.
        """
        try:
            self.file: BinaryIO = body.path.open("rb", buffering=0)
        except OSError:
            raise BlobMissing("The image is not in the store any more; ask again") from None
        self.file.seek(body.start)
        self._body = body

    def is_all_that_follows(self) -> bool:
        """Tell whether the part goes to the end of the file; servers are not all known to stop before it."""
        return self._body.start + self._body.length == os.fstat(self.file.fileno()).st_size

    def __iter__(self) -> Iterator[bytes]:
        left = self._body.length
        while left > 0:
            piece = self.file.read(min(left, _PIECE_BYTES))
            if not piece:
                raise _too_short(left, self._body.length)
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class StreamPieces:
    """A part of a blob, as the store yields it; the first piece is there from the beginning."""

    def __init__(self, body: StreamBody) -> None:
        """Read the first piece.

        Raises:
            StoreFailed: the store does not give it.
        """
        self._length = body.length
        self._pieces = body.read(body.start, body.length)
        self._first = next(self._pieces, b"")

    def __iter__(self) -> Iterator[bytes]:
        left = self._length
        for piece in chain((self._first,), self._pieces):
            left -= len(piece)
            yield piece
        if left > 0:  # the connection is broken off, so that nobody takes a part for the whole
            raise _too_short(left, self._length)

    def close(self) -> None:
        """Let the store go."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


def _too_short(left: int, length: int) -> OSError:
    return OSError(f"{length - left} of {length} bytes were there")
