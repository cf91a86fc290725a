"""The two syntaxes of forms, as push parsers that hand fields on piece by piece and keep nothing back."""

from __future__ import annotations

import re
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, QuerystringParser, parse_options_header

from lazypix.errors import BadUpload, TooLarge

ACCEPTED_TYPES = "multipart/form-data or application/x-www-form-urlencoded"
_MAX_NAME_BYTES = 64 * 1024


class Fields(Protocol):
    """What takes the fields of a form: for each one `begin`, any number of `data`, `end`."""

    def begin(self, name: str, filename: str | None) -> None:
        """Take up a field; `filename` is None unless it is a file."""
        ...

    def data(self, piece: bytes) -> None:
        """Take some of the field's value."""
        ...

    def end(self) -> None:
        """Finish the field."""
        ...


class Syntax(Protocol):
    """A form in one of the syntaxes, being received."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            BadUpload, TooLarge: the form is malformed, or a name is too long; and what `Fields` raises.
        """
        ...

    def finish(self) -> None:
        """Take the end of the body.

        Raises:
            BadUpload: the form is not complete.
        """
        ...


def choose_syntax(content_type: bytes, fields: Fields) -> Syntax:
    """Return the parser for a `Content-Type`, which hands what it reads to `fields`.

    Raises:
        BadUpload: it names no form, or its boundary is missing or malformed.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return _Multipart(options.get(b"boundary", b""), fields)
    if kind == b"application/x-www-form-urlencoded":
        return _Urlencoded(fields)
    shown = kind.decode("latin-1")[:100] or "none"
    raise BadUpload(f"Content-Type {shown!r} is not a form; accepted: {ACCEPTED_TYPES}")


class _Multipart:
    """`multipart/form-data`. Source: RFC 7578."""

    def __init__(self, boundary: bytes, fields: Fields) -> None:
        if not boundary:
            raise BadUpload("The multipart form has no boundary in its Content-Type")
        self._fields = fields
        self._ended = False
        self._header_name = self._header_value = b""
        self._disposition: bytes | None = None
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value_part,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": lambda data, start, end: fields.data(data[start:end]),
                    "on_part_end": fields.end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise BadUpload(f"The form's boundary is not accepted ({error})") from None

    def feed(self, data: bytes) -> None:
        _write(self._parser, data)

    def finish(self) -> None:
        _finalize(self._parser)
        if not self._ended:
            raise BadUpload("The form ends early: its closing boundary is missing")

    def _part_begin(self) -> None:
        self._header_name = self._header_value = b""
        self._disposition = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]  # the parser bounds both

    def _header_value_part(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, filename = options.get(b"name"), options.get(b"filename")
        if name is None:
            raise BadUpload("A part of the form has no name")
        self._fields.begin(_text(name), _text(filename) if filename is not None else None)

    def _end(self) -> None:
        self._ended = True


class _Urlencoded:
    """`application/x-www-form-urlencoded`. Source: WHATWG URL Standard, section 5.1."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._name = b""
        self._begun = False
        self._unquoter = _Unquoter()
        self._parser = QuerystringParser(
            {
                "on_field_start": self._field_start,
                "on_field_name": self._field_name,
                "on_field_data": self._field_data,
                "on_field_end": self._field_end,
            }
        )

    def feed(self, data: bytes) -> None:
        _write(self._parser, data)

    def finish(self) -> None:
        _finalize(self._parser)

    def _field_start(self) -> None:
        self._name, self._begun = b"", False

    def _field_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        if len(self._name) > _MAX_NAME_BYTES:
            raise TooLarge(f"A field's name is over the limit of {_MAX_NAME_BYTES} bytes")

    def _field_data(self, data: bytes, start: int, end: int) -> None:
        self._begin()
        self._fields.data(self._unquoter.feed(data[start:end]))

    def _field_end(self) -> None:
        self._begin()
        self._fields.data(self._unquoter.end())
        self._fields.end()

    def _begin(self) -> None:
        """Begin the field once, when its name is complete."""
        if not self._begun:
            self._begun = True
            self._fields.begin(_text(self._unquoter.feed(self._name) + self._unquoter.end()), None)


def _write(parser: MultipartParser | QuerystringParser, data: bytes) -> None:
    try:
        parser.write(data)
    except FormParserError as error:
        raise BadUpload(f"The form is malformed ({error})") from None


def _finalize(parser: MultipartParser | QuerystringParser) -> None:
    try:
        parser.finalize()
    except FormParserError:
        raise BadUpload("The form ends early") from None


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


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
