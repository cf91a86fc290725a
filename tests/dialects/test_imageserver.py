"""ImageServer's addresses and the `sizes` of its forms, as its documents promise them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_transform import transforms

from lazypix.dialects import Target, Wanted
from lazypix.dialects.imageserver import MAX_SIZES, ImageServer, geometry, parse_sizes, size_text
from lazypix.dialects.native import MOUNT
from lazypix.dialects.ordered import parse
from lazypix.errors import BadIdent, BadRequest, BadTransform, LazypixError
from lazypix.transform import Transform


def _parse(address: str) -> Wanted:
    path, _, query = address.partition("?")
    return parse(Target.split(MOUNT + path, query, MOUNT))


# width, height as ImageServer writes them; canonical text
SIZES = [
    ("100", "50", "100x50,fit=cover"),
    ("50", "100", "50x100,fit=cover"),
    ("100", "100", "100x100,fit=cover,gravity=portrait"),  # a square loses height 1:3
    ("50", "0", "50x,fit=outside"),
    ("150", "<60", "150x60,fit=top"),
    ("60", "<60", "60x60,fit=top"),
]

INVERSES = [
    ("cat.jpg?width=100&height=50", "100x50,fit=cover,quality=90,format=jpg"),
    ("cat.jpg?width=100&height=100", "100x100,fit=cover,gravity=portrait,quality=90,format=jpg"),
    ("cat.jpg?width=50&height=0", "50x,fit=outside,quality=90,format=jpg"),
    ("cat.jpg?width=150&height=<60", "150x60,fit=top,quality=90,format=jpg"),
    ("cat.webp?width=100&height=50", "100x50,fit=cover,format=webp"),
    ("cat.auto?width=100&height=50", "100x50,fit=cover"),
    ("cat.jpg", "format=jpg"),
]

SAME = [
    ("cat.jpg?width=50", "cat.jpg?width=50&height=0"),
    ("cat.jpg?height=50&width=100", "cat.jpg?width=100&height=50"),
    ("cat.jpg?width=150&height=%3C60", "cat.jpg?width=150&height=<60"),
    ("cat.jpeg?width=0100&height=050", "cat.jpg?width=100&height=50"),
    ("100/cat.jpg", "cat.jpg?width=100&height=0"),
    ("100/0/cat.jpg", "cat.jpg?width=100&height=0"),
    ("100/50/cat.jpg", "cat.jpg?width=100&height=50"),
    ("100/100/cat.jpg", "cat.jpg?width=100&height=100"),
    ("150/%3C60/cat.jpg", "cat.jpg?width=150&height=<60"),
    ("150/<60/cat.jpg", "cat.jpg?width=150&height=<60"),
    ("100/50/cat", "cat.auto?width=100&height=50"),
    ("100/cat.webp", "cat.webp?width=100&height=0"),
]

WITH_MORE = [
    ("cat.jpg?width=100&height=50&rotate=90", "100x50,fit=cover,rotate=90,quality=90,format=jpg"),
    ("cat.jpg?width=100&height=50&quality=70", "100x50,fit=cover,quality=70,format=jpg"),
    ("cat.jpg?width=100&height=100&gravity=north", "100x100,fit=cover,gravity=north,quality=90,format=jpg"),
    ("cat.jpg?width=100&height=100&gravity=center", "100x100,fit=cover,quality=90,format=jpg"),
    ("cat.jpg?width=100&dpr=2", "100x,fit=outside,dpr=2,quality=90,format=jpg"),
    ("cat.webp?width=100&height=50&lossless=true", "100x50,fit=cover,lossless=true,format=webp"),
    ("cat?width=100&height=50&format=jpeg", "100x50,fit=cover,quality=90,format=jpg"),
    ("cat.jpg?height=50", "x50,fit=outside,quality=90,format=jpg"),
    # naming a fit makes all of it native: no quality 90 either
    ("cat.jpg?width=100&height=50&fit=cover", "100x50,fit=cover,format=jpg"),
    ("cat.jpg?width=100&height=100&fit=inside", "100x100,format=jpg"),
    ("cat.jpg?rotate=90", "rotate=90,format=jpg"),
    # a native size in the path always holds an x
    ("100x/cat.jpg", "100x,format=jpg"),
]

BAD: list[tuple[str, type[LazypixError], str]] = [
    ("cat.jpg?width=0&height=50", BadTransform, "width=0"),
    ("cat.jpg?width=0&height=0", BadTransform, "width=0"),
    ("cat.jpg?height=0", BadTransform, "height=0"),
    ("cat.jpg?width=50&height=<0", BadTransform, "height=<0"),
    ("cat.jpg?height=<50", BadTransform, "height=<50"),
    ("cat.jpg?width=<50&height=50", BadTransform, "'<50'"),
    ("cat.jpg?width=50&height=<<50", BadTransform, "'<50'"),
    ("cat.jpg?width=50&height=>50", BadTransform, "'>50'"),
    ("cat.jpg?width=-5&height=50", BadTransform, "'-5'"),
    ("cat.jpg?width=1.5", BadTransform, "'1.5'"),
    ("cat.jpg?width=abc", BadTransform, "'abc'"),
    ("cat.jpg?width=5&height=", BadTransform, "''"),
    ("cat.jpg?width=%D9%A1", BadTransform, "'١'"),
    ("cat.jpg?width=1000000", BadTransform, "'1000000'"),
    ("cat.jpg?width=100&width=200", BadTransform, "'width' is given twice"),
    ("cat.jpg?width=100&height=1&height=2", BadTransform, "'height' is given twice"),
    ("cat.jpg?width=100&rotate=90&rotate=90", BadTransform, "'rotate' is given twice"),
    ("cat.jpg?width=100&size=3", BadTransform, "'size'; accepted"),
    ("100/50/cat.jpg?rotate=90", BadTransform, "'rotate'"),
    ("100/cat.jpg?width=100", BadTransform, "'width'"),
    ("-5/cat.jpg", BadTransform, "'-5'"),
    ("1.5/cat.jpg", BadTransform, "'1.5'"),
    ("0/cat.jpg", BadTransform, "width=0"),
    ("0/50/cat.jpg", BadTransform, "width=0"),
    ("a/50/cat.jpg", BadTransform, "'a'"),
    ("100/b/cat.jpg", BadTransform, "'b'"),
    ("100/../cat.jpg", BadTransform, "'..'"),
    ("100/50/..", BadIdent, "'.'"),
    ("100/50/..%2F..%2Fcat.jpg", BadIdent, r"'../../cat'"),
    ("100/50/", BadIdent, "''"),
    ("100//cat.jpg", BadTransform, "''"),
    ("//cat.jpg", BadTransform, "height=''"),
    ("100/50/cat.tiff", BadRequest, "cannot be made as tiff"),
    ("100/50/cat.exe", BadRequest, r"\.exe"),
]


@pytest.mark.parametrize(("width", "height", "text"), SIZES)
def test_sizes_and_transforms_are_inverses(width: str, height: str, text: str) -> None:
    assert geometry(width, height) == Transform.parse(text)
    assert size_text(Transform.parse(text)) == (width, height)


@pytest.mark.parametrize(("address", "text"), INVERSES)
def test_parse_and_format_are_inverses(address: str, text: str) -> None:
    wanted = Wanted(ident="cat", transform=Transform.parse(text))
    assert _parse(address) == wanted
    assert ImageServer().format(wanted) == address


@pytest.mark.parametrize(("address", "same"), SAME)
def test_other_spellings_mean_the_same(address: str, same: str) -> None:
    assert _parse(address) == _parse(same)
    assert ImageServer().format(_parse(address)) == same


@pytest.mark.parametrize(("address", "text"), WITH_MORE)
def test_native_options_go_with_it(address: str, text: str) -> None:
    assert _parse(address).transform.text == text


@pytest.mark.parametrize(("address", "error", "message"), BAD)
def test_what_is_wrong_is_refused_by_name(address: str, error: type[LazypixError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        _parse(address)
    assert len(str(caught.value)) < 400


@given(transforms())
def test_what_it_cannot_say_it_does_not_say(transform: Transform) -> None:
    """Contract of `Dialect.format`: what is written is read as what was meant, or it is refused."""
    wanted = Wanted(ident="cat", transform=transform)
    try:
        address = ImageServer().format(wanted)
    except BadTransform:
        return
    assert _parse(address) == wanted


sides = st.integers(1, 999).map(str)
sizes = st.tuples(sides, sides | sides.map(lambda side: f"<{side}") | st.just("0"))


@given(sizes, st.sampled_from((None, 33, 90)), st.sampled_from((None, "jpg", "webp", "png")))
def test_what_it_says_it_is_understood_by(size: tuple[str, str], quality: int | None, name: str | None) -> None:
    transform = replace(geometry(*size), quality=None if name == "png" else quality, format=name)
    wanted = Wanted(ident="cat", transform=transform)
    try:
        address = ImageServer().format(wanted)
    except BadTransform:
        return
    assert _parse(address) == wanted


def test_an_original_that_is_no_variant_keeps_its_extension() -> None:
    wanted = Wanted(ident="cat", transform=Transform(), source_format="tiff")
    assert _parse(ImageServer().format(wanted)) == wanted


def test_a_native_address_is_left_to_native() -> None:
    for address in ("200x100/cat.jpg", "cat.jpg", "cat.jpg?rotate=90", "cat.jpg?fit=cover&width=1"):
        path, _, query = address.partition("?")
        assert ImageServer().parse(Target.split(MOUNT + path, query, MOUNT)) is None


# --- the sizes of forms ----------------------------------------------------------------------------------------


def test_the_sizes_of_a_form() -> None:
    found = parse_sizes("100x50,150x<60, 50x0 ,80x80")
    assert [size.echo for size in found] == [("100", "50"), ("150", "<60"), ("50", "0"), ("80", "80")]
    assert [size.transform.text for size in found] == [
        "100x50,fit=cover,quality=90,format=jpg",
        "150x60,fit=top,quality=90,format=jpg",
        "50x,fit=outside,quality=90,format=jpg",
        "80x80,fit=cover,gravity=portrait,quality=90,format=jpg",
    ]


def test_a_size_named_at_upload_is_the_one_that_is_asked_for_later() -> None:
    for token, address in (("100x50", "100/50/cat.jpg"), ("50x0", "cat.jpg?width=50"), ("9x<9", "9/<9/cat.jpg")):
        assert parse_sizes(token)[0].transform == _parse(address).transform


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_no_sizes(text: str) -> None:
    assert parse_sizes(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "'100'; accepted: <width>x<height>, <width>x0 or <width>x<<height>"),
        ("100x", "'100x'"),
        ("x100", "'x100'"),
        ("0x100", "width=0"),
        ("0x0", "width=0"),
        ("100x<0", "height=<0"),
        ("100x50x20", "'100x50x20'"),
        ("100 x50", "'100 x50'"),
        ("100X50", "'100X50'"),
        ("100*50", "'100\\*50'"),
        ("-1x50", "'-1x50'"),
        ("<100x50", "'<100x50'"),
        ("100x<<50", "'100x<<50'"),
        ("1e2x50", "'1e2x50'"),
        ("100x50,abc", "'abc'"),
        ("１x1", "'１x1'"),
        ("1000000x1", "'1000000x1'"),
        (",".join(["1x1"] * (MAX_SIZES + 1)), "101 sizes are too many; at most 100"),
        ("x" * 5000, "x{64}'"),
    ],
)
def test_a_bad_size_is_named(text: str, message: str) -> None:
    with pytest.raises(BadTransform, match=message) as caught:
        parse_sizes(text)
    assert len(str(caught.value)) < 400


def test_as_many_sizes_as_are_accepted() -> None:
    assert len(parse_sizes(",".join(["1x1"] * MAX_SIZES))) == MAX_SIZES


@given(st.text(max_size=30) | st.text(alphabet="0123456789x<,", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        sizes = parse_sizes(text)
    except BadTransform:
        return
    again = parse_sizes(",".join("x".join(size.echo) for size in sizes))
    assert again == sizes
