"""Receiving forms: the image is streamed to disk, and only small fields are kept in memory.

The image may be a file part, or a plain field that holds the bytes, base64 or a `data:` URL.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from starlette.types import Receive

from lazypix.errors import BadUpload, TooLarge, TooSlow
from lazypix.formats import SNIFF_BYTES, sniff
from lazypix.incoming import Incoming
from lazypix.server.syntax import choose_syntax

IMAGE = "image"
MAX_FIELD_BYTES = 64 * 1024
MAX_FIELDS = 50
# Room for boundaries, part headers and small fields, and for base64's third, around the image itself.
_OVERHEAD_BYTES = 8 * 1024 * 1024
_DECODE_BYTES = 768 * 1024
_DATA_URL = re.compile(rb"\s*data:[^,]{0,200}?;base64,", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=\-\s]+")
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


@dataclass(slots=True)
class Form:
    """A received form. `image` lies in a temporary file, which belongs to whoever opened the form."""

    fields: dict[str, str] = field(default_factory=dict)
    image: Incoming | None = None
    filename: str | None = None


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
        yield await asyncio.to_thread(receiver.finish)
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
    """Takes a body in pieces, and sorts its fields into small ones and the image's file."""

    def __init__(self, content_type: bytes, new_incoming: Callable[[], Incoming]) -> None:
        self.waiting_bytes = 0
        self._form = Form()
        self._new_incoming = new_incoming
        self._opened: list[Incoming] = []
        self._waiting: list[bytes] = []
        self._value = bytearray()
        self._name = ""
        self._image_is_text = False
        self._syntax = choose_syntax(content_type, self)

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self._syntax.feed(data)

    def flush(self) -> None:
        """Write what waits for the image's file."""
        if self._form.image is None:
            return
        for data in self._waiting:
            self._form.image.write(data)
        self._waiting.clear()
        self.waiting_bytes = 0

    def finish(self) -> Form:
        """Return the form, when its body has ended."""
        self._syntax.finish()
        self.flush()
        if self._form.image is not None:
            self._form.image.finish()
            if self._image_is_text:
                self._decode_text(self._form.image)
        return self._form

    def discard(self) -> None:
        """Remove the files that were not moved away."""
        for incoming in self._opened:
            incoming.discard()

    def begin(self, name: str, filename: str | None) -> None:
        """Take up a field."""
        if name in self._form.fields or (name == IMAGE and self._form.image is not None):
            raise BadUpload(f"The field {name!r} is given twice")
        if len(self._form.fields) >= MAX_FIELDS:
            raise BadUpload(f"The form has more than {MAX_FIELDS} fields")
        self._name = name
        if name == IMAGE:
            self._form.image = self._open()
            self._form.filename = filename or None
            self._image_is_text = filename is None

    def data(self, piece: bytes) -> None:
        """Take some of the field's value."""
        if self._name == IMAGE:
            self._waiting.append(piece)
            self.waiting_bytes += len(piece)
        elif len(self._value) + len(piece) > MAX_FIELD_BYTES:
            raise TooLarge(
                f"The field {self._name[:64]!r} is over the limit of {MAX_FIELD_BYTES} bytes; an image stands in the "
                f"field {IMAGE!r}"
            )
        else:
            self._value += piece

    def end(self) -> None:
        """Finish the field."""
        if self._name != IMAGE:
            self._form.fields[self._name] = self._value.decode("utf-8", errors="replace")
        self._value.clear()

    def _open(self) -> Incoming:
        incoming = self._new_incoming()
        self._opened.append(incoming)
        return incoming

    def _decode_text(self, raw: Incoming) -> None:
        """Replace the file of a plain field by what it says, if it is base64 or a data: URL."""
        with raw.path.open("rb") as file:
            start = _base64_begins(file.read(512))
            if start is None:
                return  # the bytes themselves
            file.seek(start)
            self._form.image = decoded = self._open()
            _decode_base64(file, decoded)
            decoded.finish()


def _base64_begins(head: bytes) -> int | None:
    """Return where the base64 of a text begins, or None when it is none; `head` is how it begins."""
    match = _DATA_URL.match(head)
    if match is not None:
        return match.end()
    if sniff(head[:SNIFF_BYTES]) or not _BASE64.fullmatch(head):
        return None
    return len(head) - len(head.lstrip())  # spaces inside may be plus signs, but not before


def _decode_base64(text: BinaryIO, to: Incoming) -> None:
    rest = b""
    while piece := text.read(_DECODE_BYTES):
        # A form may have turned the plus signs into spaces; the URL-safe alphabet is taken too.
        rest += piece.replace(b" ", b"+").translate(_TO_STANDARD, b"\r\n\t")
        whole = len(rest) - len(rest) % 4
        to.write(_from_base64(rest[:whole]))
        rest = rest[whole:]
    to.write(_from_base64(rest + b"=" * (-len(rest) % 4)))


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadUpload("The image field looks like base64, but is malformed") from None
