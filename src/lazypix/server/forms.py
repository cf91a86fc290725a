"""Receiving forms: a push parser that streams the image to disk and keeps only small fields in memory.

`multipart/form-data` and `application/x-www-form-urlencoded`; the image may be a file part, or a plain field that
holds the bytes, base64 or a `data:` URL.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, QuerystringParser, parse_options_header
from starlette.types import Receive

from lazypix.errors import BadUpload, TooLarge, TooSlow
from lazypix.formats import SNIFF_BYTES, sniff
from lazypix.incoming import Incoming

IMAGE = "image"
MAX_FIELD_BYTES = 64 * 1024
MAX_FIELDS = 50
ACCEPTED_TYPES = "multipart/form-data or application/x-www-form-urlencoded"
# Room for boundaries, part headers and small fields, and for base64's third, around the image itself.
_OVERHEAD_BYTES = 8 * 1024 * 1024
_DECODE_BYTES = 768 * 1024
_DATA_URL = re.compile(rb"data:[^,]{0,200}?;base64,", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=\-\s]+")


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


@dataclass(slots=True)
class Form:
    """A received form. `image` lies in a temporary file, which belongs to whoever opened the form."""

    fields: dict[str, str] = field(default_factory=dict)
    image: Incoming | None = None
    filename: str | None = None


class _Parser(Protocol):
    def write(self, data: bytes) -> int: ...
    def finalize(self) -> None: ...


@asynccontextmanager
async def receive_form(
    receive: Receive,
    headers: dict[bytes, bytes],
    new_incoming: Callable[[], Incoming],
    *,
    max_bytes: int,
    buffer_bytes: int,
    idle_s: float,
    deadline_s: float,
) -> AsyncIterator[Form]:
    """Receive the form of a request, with at most about `buffer_bytes` of it in memory.

    At the end the image's temporary file is removed, unless it was moved away.

    Raises:
        BadUpload: the body is no form, is malformed, or names a field twice.
        TooLarge: the image is over its limit, or the rest of the form is.
        TooSlow: nothing came for `idle_s` seconds, or not all of it within `deadline_s`.
        ClientGone: the client went away.
    """
    length, most = headers.get(b"content-length", b""), 2 * max_bytes + _OVERHEAD_BYTES
    if length.isdigit() and int(length) > most:
        raise _too_large(max_bytes)
    receiver = _Receiver(headers.get(b"content-type", b""), new_incoming)
    try:
        try:
            async with asyncio.timeout(deadline_s):
                size = await _pump(receive, receiver, buffer_bytes, idle_s, most)
        except TimeoutError:
            raise TooSlow(f"The form was not received within {deadline_s:g} seconds") from None
        if size > most:
            raise _too_large(max_bytes)
        form = await asyncio.to_thread(receiver.finish)
        yield form
    finally:
        await asyncio.to_thread(receiver.discard)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The request is over the limit of {max_bytes} bytes for an image ({max_bytes >> 20} MiB)")


async def _pump(receive: Receive, receiver: _Receiver, buffer_bytes: int, idle_s: float, most: int) -> int:
    """Feed the receiver until the body ends, or is over `most` bytes; return how many came."""
    size = 0
    while size <= most:
        try:
            message = await asyncio.wait_for(receive(), idle_s)
        except TimeoutError:
            raise TooSlow(f"Nothing was received for {idle_s:g} seconds; the upload was given up") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        body = message.get("body", b"")
        size += len(body)
        # A server may deliver a large piece at once; it is parsed, and written, in bounded ones.
        for start in range(0, len(body), buffer_bytes):
            receiver.feed(body[start : start + buffer_bytes])
            if receiver.waiting_bytes >= buffer_bytes:
                await asyncio.to_thread(receiver.flush)
        if not message.get("more_body", False):
            break
    return size


class _Receiver:
    """Takes a body in pieces, and sorts it into small fields and the image's file."""

    def __init__(self, content_type: bytes, new_incoming: Callable[[], Incoming]) -> None:
        self.form = Form()
        self.waiting_bytes = 0
        self._new_incoming = new_incoming
        self._opened: list[Incoming] = []
        self._waiting: list[bytes] = []
        self._value = bytearray()
        self._name = ""
        self._is_image = self._as_text = False
        self._header_name = b""
        self._header_value = b""
        self._disposition: bytes | None = None
        self._parser, self._unquote = self._choose(content_type)

    def _choose(self, content_type: bytes) -> tuple[_Parser, _Unquoter | None]:
        kind, options = parse_options_header(content_type)
        if kind == b"multipart/form-data":
            boundary = options.get(b"boundary")
            if not boundary:
                raise BadUpload("The multipart form has no boundary in its Content-Type")
            try:
                return MultipartParser(boundary, self._multipart_callbacks()), None  # type: ignore[arg-type]
            except FormParserError as error:
                raise BadUpload(f"The form's boundary is not accepted ({error})") from None
        if kind == b"application/x-www-form-urlencoded":
            return QuerystringParser(self._query_callbacks()), _Unquoter()  # type: ignore[arg-type]
        shown = kind.decode("latin-1")[:100] or "none"
        raise BadUpload(f"Content-Type {shown!r} is not a form; accepted: {ACCEPTED_TYPES}")

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadUpload(f"The form is malformed ({error})") from None

    def flush(self) -> None:
        """Write what waits for the image's file."""
        if self.form.image is None:
            return
        for data in self._waiting:
            self.form.image.write(data)
        self._waiting.clear()
        self.waiting_bytes = 0

    def finish(self) -> Form:
        try:
            self._parser.finalize()
        except FormParserError:
            raise BadUpload("The form ends early") from None
        if isinstance(self._parser, MultipartParser) and not self._ended:
            raise BadUpload("The form ends early: its closing boundary is missing")
        self.flush()
        if self.form.image is not None:
            self.form.image.finish()
            if self._as_text:
                self._decode_text(self.form.image)
        return self.form

    def discard(self) -> None:
        for incoming in self._opened:
            incoming.discard()

    # --- what the parsers call -----------------------------------------------------------------------------------

    def _multipart_callbacks(self) -> dict[str, Callable[..., None]]:
        self._ended = False
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value_part,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end_field,
            "on_end": self._end,
        }

    def _query_callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_field_start": self._begin_part,
            "on_field_name": self._field_name,
            "on_field_data": self._query_data,
            "on_field_end": self._end_query_field,
        }

    def _begin_part(self) -> None:
        self._header_name = self._header_value = b""
        self._disposition = None
        self._name, self._is_image = "", False
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_small(len(self._header_name))

    def _header_value_part(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_small(len(self._header_value))

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if name is None:
            raise BadUpload("A part of the form has no name")
        filename = options.get(b"filename")
        text = filename.decode("utf-8", errors="replace") if filename is not None else None
        self._begin_field(name.decode("utf-8", errors="replace"), text)

    def _field_name(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_small(len(self._value))

    def _query_data(self, data: bytes, start: int, end: int) -> None:
        assert self._unquote is not None
        self._begin_query_field()
        plain = self._unquote.feed(data[start:end])
        self._data(plain, 0, len(plain))

    def _begin_query_field(self) -> None:
        if not self._name and self._unquote is not None:
            name = self._unquote.feed(bytes(self._value)) + self._unquote.end()
            self._value.clear()
            self._begin_field(name.decode("utf-8", errors="replace"), None)

    def _begin_field(self, name: str, filename: str | None) -> None:
        if name in self.form.fields or (name == IMAGE and self.form.image is not None):
            raise BadUpload(f"The field {name!r} is given twice")
        if len(self.form.fields) >= MAX_FIELDS:
            raise BadUpload(f"The form has more than {MAX_FIELDS} fields")
        self._name, self._is_image = name, name == IMAGE
        if self._is_image:
            self.form.image = self._new_incoming()
            self.form.filename = filename or None
            self._opened.append(self.form.image)
            self._as_text = filename is None

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_image:
            self._waiting.append(data[start:end])
            self.waiting_bytes += end - start
        else:
            self._value += data[start:end]
            self._check_small(len(self._value))

    def _end_query_field(self) -> None:
        assert self._unquote is not None
        self._begin_query_field()
        rest = self._unquote.end()
        self._data(rest, 0, len(rest))
        self._end_field()

    def _end_field(self) -> None:
        if not self._is_image:
            self.form.fields[self._name] = self._value.decode("utf-8", errors="replace")
        self._value.clear()

    def _end(self) -> None:
        self._ended = True

    def _check_small(self, size: int) -> None:
        if size > MAX_FIELD_BYTES:
            raise TooLarge(f"The field {self._name[:64]!r} is over the limit of {MAX_FIELD_BYTES} bytes")

    def _decode_text(self, raw: Incoming) -> None:
        """Replace the file of a plain field by what it says, if it is base64 or a data: URL."""
        with raw.path.open("rb") as file:
            head = file.read(512)
            match = _DATA_URL.match(head)
            if match is None and (sniff(head[:SNIFF_BYTES]) or not _BASE64.fullmatch(head)):
                return  # the bytes themselves
            file.seek(match.end() if match else 0)
            self.form.image = self._new_incoming()
            self._opened.append(self.form.image)
            rest = b""
            while piece := file.read(_DECODE_BYTES):
                # A form may have turned the plus signs into spaces; the URL-safe alphabet is taken too.
                text = rest + piece.replace(b" ", b"+").translate(_TO_STANDARD, b"\r\n\t")
                whole = len(text) - len(text) % 4
                self.form.image.write(_from_base64(text[:whole]))
                rest = text[whole:]
            self.form.image.write(_from_base64(rest + b"=" * (-len(rest) % 4)))
            self.form.image.finish()


_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadUpload("The image field looks like base64, but is malformed") from None


class _Unquoter:
    """Undoes form-urlencoding in pieces: `+` is a space, `%XX` a byte that may be cut by a piece's end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        cut = data.rfind(b"%", max(0, len(data) - 2))
        self._rest = data[cut:] if cut >= 0 else b""
        return _unquoted(data[:cut] if cut >= 0 else data)

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return _unquoted(rest)


def _unquoted(data: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes((int(m[1], 16),)), data.replace(b"+", b" "))
