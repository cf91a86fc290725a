"""Idents and keys: what may name an image, and where its blobs lie."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.errors import BadIdent
from lazypix.keys import KeyScheme, check_ident, new_ident
from lazypix.stores import check_key

idents = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)


@pytest.mark.parametrize("ident", ["a", "Z", "0", "_", "-", "a-b_C9", "x" * 128])
def test_an_ident_may_be(ident: str) -> None:
    assert check_ident(ident) == ident


@pytest.mark.parametrize(
    "ident",
    ["", "x" * 129, "a.b", ".", "..", "a/b", "a\\b", "a b", "a\n", "a\0", "é", "١", "a%2fb", "a,b", "a=b", "<b>"],
)
def test_an_ident_may_not_be(ident: str) -> None:
    with pytest.raises(BadIdent, match="accepted: 1 to 128 of the characters"):
        check_ident(ident)


def test_a_long_bad_ident_is_not_repeated_in_full() -> None:
    with pytest.raises(BadIdent) as caught:
        check_ident("é" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_new_ident_is_a_uuid_of_version_7() -> None:
    before = time.time_ns() // 1_000_000
    ident = new_ident()
    assert check_ident(ident) == ident
    after = time.time_ns() // 1_000_000
    value = uuid.UUID(hex=ident)
    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert before <= value.int >> 80 <= after
    assert ident == value.hex == check_ident(ident)


def test_new_idents_are_all_different() -> None:
    assert len({new_ident() for _ in range(10_000)}) == 10_000


def test_new_idents_sort_by_time() -> None:
    idents = []
    for _ in range(5):
        idents.append(new_ident())
        now = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == now:
            pass
    assert idents == sorted(idents)


def test_the_random_bits_of_an_ident_are_all_used() -> None:
    values = [int(new_ident(), 16) for _ in range(200)]
    set_somewhere = clear_somewhere = 0
    for value in values:
        set_somewhere |= value
        clear_somewhere |= ~value
    fixed = 0xF << 76 | 0x3 << 62
    random = ((1 << 80) - 1) & ~fixed
    assert set_somewhere & clear_somewhere & random == random


def test_where_blobs_lie() -> None:
    plain = KeyScheme()
    assert plain.folder("cat") == "cat/"
    assert plain.original("cat", "jpg") == "cat/origin.jpg"
    assert plain.variant("cat", "200x100,fit=cover", "webp") == "cat/200x100,fit=cover.webp"
    deep = KeyScheme(prefix="img/", shard=2)
    assert deep.folder("00ab") == "img/ab/00ab/"
    assert deep.original("00ab", "png") == "img/ab/00ab/origin.png"
    assert deep.folder("a") == "img/a/a/"  # shorter than the shard


schemes = st.builds(KeyScheme, prefix=st.sampled_from(("", "img/", "a/b/")), shard=st.integers(0, 4))


@given(schemes, idents, idents)
def test_no_image_lies_in_the_folder_of_another(scheme: KeyScheme, one: str, other: str) -> None:
    inside = scheme.original(other, "jpg").startswith(scheme.folder(one))
    assert inside == (one == other)


@given(schemes, idents)
def test_every_key_is_well_formed(scheme: KeyScheme, ident: str) -> None:
    assert check_key(scheme.original(ident, "jpg"))
    assert check_key(scheme.variant(ident, "full", "avif"))
