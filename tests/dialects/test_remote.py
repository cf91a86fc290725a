"""Addresses of other servers' images, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.dialects.remote import parse_remote, remote_address
from lazypix.errors import BadRequest, LazypixError, NotFound
from lazypix.presets import Presets
from lazypix.transform import Transform

URL = "https://a.test/b/c.jpg?d=e&f=%20#g"


@pytest.mark.parametrize(
    ("text", "format", "address"),
    [
        ("full", None, "/remote/full.auto?url="),
        ("full", "jpg", "/remote/full.jpg?url="),
        ("300x200,fit=cover", "webp", "/remote/300x200,fit=cover.webp?url="),
        ("300x200,fit=cover,gravity=0.3:0.7", None, "/remote/300x200,fit=cover,gravity=0.3:0.7.auto?url="),
    ],
)
def test_an_address_is_read_as_it_was_written(text: str, format: str | None, address: str) -> None:
    written = remote_address(URL, text, format)
    assert written == f"{address}https%3A%2F%2Fa.test%2Fb%2Fc.jpg%3Fd%3De%26f%3D%2520%23g"
    path, _, query = written.partition("?")
    wanted = parse_remote(path, query)
    assert wanted.url == URL.partition("#")[0]
    assert wanted.transform == (
        Transform.parse(text).with_format(format) if format is not None else Transform.parse(text)
    )


@given(st.text(st.characters(codec="ascii", exclude_characters="#"), min_size=1))
def test_any_url_survives(url: str) -> None:
    path, _, query = remote_address(url).partition("?")
    assert parse_remote(path, query).url == url


def test_presets_and_originals_can_be_asked_for() -> None:
    presets = Presets.read({"thumb": "100x100,fit=cover"})
    wanted = parse_remote("/remote/@thumb.webp", "url=http%3A%2F%2Fa.test", presets.transform)
    assert wanted.transform == Transform.parse("100x100,fit=cover").with_format("webp")
    original = parse_remote("/remote/full.tiff", "url=http%3A%2F%2Fa.test").of("some")
    assert (original.ident, original.source_format) == ("some", "tiff")
    assert parse_remote("/remote/full", "url=a").transform.format is None


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("/remote/full.jpg?", BadRequest, "0 URLs; accepted: /remote/<size>.<ext>?url="),
        ("/remote/full.jpg?url=", BadRequest, "accepted: /remote/"),
        ("/remote/full.jpg?url=a&url=b", BadRequest, "2 URLs"),
        ("/remote/full.jpg?url=a&width=3", BadRequest, "Unknown option 'width'"),
        ("/remote/full.exe?url=a", BadRequest, "Unknown extension .exe"),
        ("/remote/300x200,dpr=1.5?url=a", BadRequest, "Unknown extension .5"),
        ("/remote/30?url=a", BadRequest, "30"),
        ("/remote/?url=a", BadRequest, ""),
        ("/remote/a/b.jpg?url=a", NotFound, "accepted: /remote/"),
        ("/remote/full.jpg?url=%ff", BadRequest, "UTF-8"),
        ("/elsewhere/full.jpg?url=a", NotFound, "/remote/"),
    ],
)
def test_what_is_wrong_is_named(target: str, error: type[LazypixError], said: str) -> None:
    path, _, query = target.partition("?")
    with pytest.raises(error) as caught:
        parse_remote(path, query)
    assert said in str(caught.value)
