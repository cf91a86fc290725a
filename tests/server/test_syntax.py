"""The two syntaxes of forms: the same fields come out however the body is cut into pieces."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.errors import BadUpload, TooLarge
from lazypix.server.syntax import choose_syntax

URLENCODED = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=----edge"

names = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), max_size=20)
values = st.binary(max_size=200) | st.sampled_from((b"\r\n------edg", b"\r\n------edge-", b"%", b"%4", b"+&=;%zz"))


class Recorded:
    """Fields that keep what they are given."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str | None, bytes]] = []
        self._open: tuple[str, str | None, bytearray] | None = None

    def begin(self, name: str, filename: str | None) -> None:
        assert self._open is None
        self._open = (name, filename, bytearray())

    def data(self, piece: bytes) -> None:
        assert self._open is not None
        self._open[2].extend(piece)

    def end(self) -> None:
        assert self._open is not None
        name, filename, value = self._open
        self.fields.append((name, filename, bytes(value)))
        self._open = None


def _read(content_type: bytes, body: bytes, piece: int = 1 << 20) -> list[tuple[str, str | None, bytes]]:
    recorded = Recorded()
    syntax = choose_syntax(content_type, recorded)
    for start in range(0, len(body), piece):
        syntax.feed(body[start : start + piece])
    syntax.finish()
    return recorded.fields


def _multipart(fields: list[tuple[str, str | None, bytes]]) -> bytes:
    parts = []
    for name, filename, value in fields:
        file = f'; filename="{filename}"' if filename is not None else ""
        head = f'------edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'
        parts.append(head.encode() + b"Content-Type: x/y\r\n\r\n" + value + b"\r\n")
    return b"".join(parts) + b"------edge--\r\n"


@given(fields=st.lists(st.tuples(names, st.none() | names, values), max_size=4), piece=st.integers(1, 300))
def test_multipart(fields: list[tuple[str, str | None, bytes]], piece: int) -> None:
    assert _read(MULTIPART, _multipart(fields), piece) == fields


@given(fields=st.lists(st.tuples(names.filter(bool), values), max_size=4), piece=st.integers(1, 300))
def test_urlencoded(fields: list[tuple[str, bytes]], piece: int) -> None:
    body = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in fields)
    assert _read(URLENCODED, body.encode(), piece) == [(name, None, value) for name, value in fields]


@pytest.mark.parametrize("piece", range(1, 6))
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", []),
        (b"a", [("a", b"")]),
        (b"a=", [("a", b"")]),
        (b"=b", [("", b"b")]),
        (b"a=b=c", [("a", b"b=c")]),
        (b"a=%", [("a", b"%")]),
        (b"a=%4", [("a", b"%4")]),
        (b"a=%41%zz+%e4", [("a", b"A%zz \xe4")]),
        (b"a%42+c=1&d", [("aB c", b"1"), ("d", b"")]),
        (b"&&a=1&&", [("a", b"1")]),
    ],
)
def test_urlencoded_by_hand(body: bytes, fields: list[tuple[str, bytes]], piece: int) -> None:
    assert _read(URLENCODED, body, piece) == [(name, None, value) for name, value in fields]


@pytest.mark.parametrize(
    ("content_type", "body", "told"),
    [
        (b"text/plain", b"", "Content-Type 'text/plain' is not a form; accepted: multipart/form-data or"),
        (b"", b"", "Content-Type 'none' is not a form"),
        (b"multipart/form-data", b"", "no boundary"),
        (b"multipart/form-data; boundary=" + b"x" * 300, b"", "boundary is not accepted"),
        (MULTIPART, b"------other\r\n", "malformed"),
        (MULTIPART, b"", "ends early"),
        (MULTIPART, b'------edge\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue', "ends early"),
        (MULTIPART, b"------edge\r\nContent-Type: x/y\r\n\r\n", "has no name"),
        (MULTIPART, b"------edge\r\nContent-Disposition: form-data\r\n\r\n", "has no name"),
    ],
)
def test_what_is_no_form_is_refused(content_type: bytes, body: bytes, told: str) -> None:
    with pytest.raises(BadUpload, match=told):
        _read(content_type, body)


@pytest.mark.parametrize("head", [b"", b"Content-Disposition: "])
def test_a_header_without_end_is_refused(head: bytes) -> None:
    with pytest.raises(BadUpload, match="header size"):
        _read(MULTIPART, b"------edge\r\n" + head + b"n" * 70_000, 1000)


def test_a_name_without_end_is_refused() -> None:
    with pytest.raises(TooLarge, match="65536 bytes"):
        _read(URLENCODED, b"n" * 70_000, 1000)
