"""The keys of replicas: as templates say, never two images or sizes under one, and known again."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.catalog import StoredVariant
from lazypix.dialects.imageserver import parse_sizes
from lazypix.keys import KeyScheme
from lazypix.replicas.layout import IMAGESERVER, Layout, OwnKeys, Templates, keys_of, shared_out
from lazypix.stores import check_key
from lazypix.transform import Transform


def variant(text: str, format: str = "jpg") -> StoredVariant:
    return StoredVariant(stem=Transform.parse(text).stem, format=format, size=1, created=datetime.now(UTC))


def named(size: str) -> StoredVariant:
    """The variant that a form's `sizes` names."""
    (found,) = parse_sizes(size)
    return variant(found.transform.stem)


FULL = Templates(original_template="o/{ident}.{ext}", variant_template="v/{width}x{height}/{ident}.jpg")
BY_STEM = Templates(original_template="{ident}/original.{ext}", variant_template="sizes/{ident}/{stem}.{ext}")


@pytest.mark.parametrize(
    ("layout", "size", "key"),
    [
        (IMAGESERVER, "100x50", "image/100/cat.jpg"), (IMAGESERVER, "150x<60", "image/150/cat.jpg"),
        (IMAGESERVER, "150x0", "image/150/cat.jpg"), (FULL, "100x50", "v/100x50/cat.jpg"),
        (FULL, "150x<60", "v/150x_60/cat.jpg"), (FULL, "150x0", "v/150x0/cat.jpg"),
        (BY_STEM, "100x50", "sizes/cat/100x50,fit=cover,quality=90.jpg"),
        (OwnKeys(scheme=KeyScheme(prefix="p/", shard=2)), "100x50", "p/at/cat/100x50,fit=cover,quality=90.jpg"),
    ],
)  # fmt: skip
def test_a_size_has_its_key(layout: Layout, size: str, key: str) -> None:
    assert layout.variant("cat", named(size)) == key
    assert layout.ident_of(key) == "cat"


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        (IMAGESERVER, "image/cat.jpg"), (FULL, "o/cat.png"), (BY_STEM, "cat/original.png"),
        (OwnKeys(), "cat/origin.png"),
    ],
)  # fmt: skip
def test_an_original_has_its_key(layout: Layout, key: str) -> None:
    assert layout.original("cat", "png") == key
    assert layout.ident_of(key) == "cat"
    assert key in keys_of(layout, "cat", [])


@pytest.mark.parametrize(
    "text", ["100x50", "100x50,fit=cover", "100x50,fit=cover,quality=80", "full,quality=90", "100x,quality=90"]
)
def test_what_imageserver_cannot_say_has_no_key_there(text: str) -> None:
    assert IMAGESERVER.variant("cat", variant(text)) is None
    assert FULL.variant("cat", variant(text)) is None
    assert IMAGESERVER.variant("cat", variant("100x50,fit=cover,quality=90", "webp")) is None
    assert BY_STEM.variant("cat", variant(text)) is not None


@pytest.mark.parametrize(
    "key", ["", "image/cat.png", "image/a/b/cat.jpg", "other/cat.jpg", "image/100/c t.jpg", "image/.jpg"]
)
def test_a_foreign_key_is_nobodys(key: str) -> None:
    assert IMAGESERVER.ident_of(key) is None


@pytest.mark.parametrize(
    ("original", "of_variants", "said"),
    [
        ("image/{id}.jpg", "image/{width}/{ident}.jpg", "unknown placeholder {id}"),
        ("image/{width}/{ident}.jpg", "image/{width}/{ident}.jpg", "accepted: {ext}, {ident}"),
        ("image/{ident}.jpg", "image/{size}/{ident}.jpg", "accepted: {ext}, {height}, {ident}, {stem}, {width}"),
        ("image/original.jpg", "image/{width}/{ident}.jpg", "{ident} must be in it"),
        ("image/{ident}.jpg", "image/{width}/a.jpg", "{ident} must be in it"),
        ("image/{ident}.jpg", "image/{ident}/{ident}.jpg", "nothing twice"),
        ("image/{ident}.jpg", "image/big/{ident}.jpg", "tell sizes apart"),
        ("image/{ident}.jpg", "image/{height}/{ident}.jpg", "tell sizes apart"),
        ("image/{ident}.jpg", "image/{ident}/{stem}.jpg", "{stem} goes with {ext}"),
        ("image/{ident}.jpg", "image/{width}{ident}.jpg", "kept apart"),
        ("image/{ident}.jpg", "image/{width}{height}/{ident}.jpg", "kept apart"),
        ("image/{ident}.jpg", "image/{ident}-{width}.jpg", "kept apart"),
        ("image/{ident}.jpg", "image/{ident}_{width}.jpg", "kept apart"),
        ("image/{ident}.jpg", "image/{stem}x{ident}.{ext}", "kept apart"),
        ("image/{ident}.jpg", "image/{width}1/{ident}.jpg", "kept apart"),
        ("{ident}", "{ident}.{width}", "may be those of"), ("a/{ident}.jpg", "a/{ident}.{width}", "may be those of"),
        ("image/{ident}/o.jpg", "image/{width}/{ident}.jpg", "may be those of"),
        ("/image/{ident}.jpg", "image/{width}/{ident}.jpg", "well-formed"),
        ("image//{ident}.jpg", "image/{width}/{ident}.jpg", "well-formed"),
        ("../{ident}.jpg", "image/{width}/{ident}.jpg", "well-formed"),
        ("image/{ident}.jpg}", "image/{width}/{ident}.jpg", "brace"), ("{{ident}}", "{width}/{ident}", "brace"),
        ("{ident!r}", "{width}/{ident}", "unknown placeholder"), ("{ident.x}", "{width}/{ident}", "unknown placeholder"),
        ("{}", "{width}/{ident}", "unknown placeholder"),
    ],
)  # fmt: skip
def test_templates_whose_keys_would_collide_are_refused(original: str, of_variants: str, said: str) -> None:
    with pytest.raises(ValueError, match="accepted") as caught:
        Templates(original_template=original, variant_template=of_variants)
    assert said in str(caught.value)


idents = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
sizes = st.builds(
    lambda width, top, height: f"{width}x{'<' if top and height else ''}{height}",
    st.integers(1, 3000), st.booleans(), st.integers(0, 3000),
)  # fmt: skip


@pytest.mark.parametrize("layout", [FULL, BY_STEM, OwnKeys()], ids=["full", "stem", "own"])
@given(one=st.tuples(idents, sizes), other=st.tuples(idents, sizes))
def test_no_two_sizes_share_a_key(layout: Layout, one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = [layout.variant(ident, named(size)) for ident, size in (one, other)]
    same = one[0] == other[0] and named(one[1]).stem == named(other[1]).stem
    assert (keys[0] == keys[1]) is same
    assert layout.original(one[0], "jpg") not in keys


@given(ident=idents, size=sizes)
def test_a_key_tells_whose_it_is(ident: str, size: str) -> None:
    for layout in (IMAGESERVER, FULL, BY_STEM, OwnKeys(), OwnKeys(scheme=KeyScheme(prefix="a/b/", shard=3))):
        key = layout.variant(ident, named(size))
        assert key is not None
        assert check_key(key) == key
        assert layout.ident_of(key) == ident
        assert layout.ident_of(layout.original(ident, "png")) == ident
        assert key in keys_of(layout, ident, [named(size)])


@given(st.lists(sizes, min_size=1, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_of_sizes_that_share_a_key_the_same_has_it_whatever_came_first(
    given: list[str], shuffle: random.Random
) -> None:
    variants = [named(size) for size in given]
    first = shared_out(IMAGESERVER, "cat", variants)
    shuffle.shuffle(variants)
    assert shared_out(IMAGESERVER, "cat", variants) == first
    for key, chosen in first.items():
        width = key.split("/")[1]
        plain = named(f"{width}x0").stem
        assert chosen.stem == plain or plain not in {variant.stem for variant in variants}
