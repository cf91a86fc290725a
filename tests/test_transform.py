"""The transform language: one meaning has one text, and what is not understood is refused by name."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lazypix.errors import BadTransform
from lazypix.formats import WRITABLE, by_name
from lazypix.plan import Turn
from lazypix.tokens import GRAVITIES, Focal, Gravity, Region
from lazypix.transform import FITS, OPTIONS, Fit, Transform

INVERSES = [
    ("full", Transform()),
    ("200x100", Transform(width=200, height=100)),
    ("200x", Transform(width=200)),
    ("x100", Transform(height=100)),
    ("200x100,fit=cover", Transform(width=200, height=100, fit="cover")),
    ("200x100,fit=fill", Transform(width=200, height=100, fit="fill")),
    ("200x100,fit=outside", Transform(width=200, height=100, fit="outside")),
    ("200x,fit=outside", Transform(width=200, fit="outside")),
    ("200x100,fit=top", Transform(width=200, height=100, fit="top")),
    ("9x9,fit=cover,gravity=north", Transform(width=9, height=9, fit="cover", gravity="north")),
    ("9x9,fit=cover,gravity=portrait", Transform(width=9, height=9, fit="cover", gravity="portrait")),
    ("9x9,fit=cover,gravity=0.3:0.7", Transform(width=9, height=9, fit="cover", gravity=Focal(x=0.3, y=0.7))),
    ("9x9,fit=cover,gravity=0:1", Transform(width=9, height=9, fit="cover", gravity=Focal(x=0, y=1))),
    ("crop=10:20:300:200", Transform(crop=Region(x=10, y=20, width=300, height=200))),
    ("crop=0:0:1:1", Transform(crop=Region(x=0, y=0, width=1, height=1))),
    (
        "crop=0.1:0.1:0.5:1.0",
        Transform(crop=Region(x=0.1, y=0.1, width=0.5, height=1, unit="fraction")),
    ),
    (
        "crop=0.0:0.0:1.0:1.0",
        Transform(crop=Region(x=0, y=0, width=1, height=1, unit="fraction")),
    ),
    ("rotate=90", Transform(rotate=90)),
    ("flip=h", Transform(flip="h")),
    ("rotate=90,flip=v", Transform(rotate=90, flip="v")),
    ("200x,dpr=2", Transform(width=200, dpr=2)),
    ("200x,dpr=1.25", Transform(width=200, dpr=1.25)),
    ("background=ff8800", Transform(background="ff8800")),
    ("quality=70", Transform(quality=70)),
    ("lossless=true", Transform(lossless=True)),
    ("quality=70,format=webp", Transform(quality=70, format="webp")),
    (
        "300x300,fit=cover,gravity=north,crop=1:2:3:4,rotate=90,dpr=2,background=000000,quality=70,format=jpg",
        Transform(
            width=300, height=300, fit="cover", gravity="north", crop=Region(x=1, y=2, width=3, height=4),
            rotate=90, dpr=2, background="000000", quality=70, format="jpg",
        ),
    ),
]  # fmt: skip

SAME = [
    ("full,rotate=90", "rotate=90"),
    ("full,quality=70", "quality=70"),
    ("0200x0100", "200x100"),
    ("width=200,height=100", "200x100"),
    ("height=100", "x100"),
    ("fit=cover,200x100", None),
    ("quality=70,200x100", None),
    ("200x100,quality=70,fit=cover", "200x100,fit=cover,quality=70"),
    ("200x100,fit=inside,gravity=center,rotate=0,dpr=1,lossless=false", "200x100"),
    ("200x100,dpr=1.00", "200x100"),
    ("200x,dpr=2.50", "200x,dpr=2.5"),
    ("200x,fit=cover", "200x,fit=outside"),
    ("x100,fit=fill", "x100,fit=outside"),
    ("9x9,fit=cover,gravity=centre", "9x9,fit=cover"),
    ("9x9,fit=cover,gravity=top", "9x9,fit=cover,gravity=north"),
    ("9x9,fit=cover,gravity=bottom-left", "9x9,fit=cover,gravity=southwest"),
    ("9x9,fit=cover,gravity=0.5:0.50", "9x9,fit=cover"),
    ("9x9,fit=cover,gravity=0.33333:0.7", "9x9,fit=cover,gravity=0.3333:0.7"),
    ("crop=0:0:0.50:0.5", "crop=0.0:0.0:0.5:0.5"),
    ("crop=010:020:30:40", "crop=10:20:30:40"),
    ("background=%23FFF".replace("%23", "#"), "background=ffffff"),
    ("background=f80", "background=ff8800"),
    ("background=White", "background=ffffff"),
    ("background=FF8800", "background=ff8800"),
    ("quality=070", "quality=70"),
    ("lossless=1", "lossless=true"),
    ("format=jpeg", "format=jpg"),
    ("format=JPG", "format=jpg"),
    ("rotate=180,flip=h", "flip=v"),
    ("rotate=180,flip=v", "flip=h"),
    ("rotate=270,flip=h", "rotate=90,flip=v"),
    ("flip=hv", "rotate=180"),
    ("rotate=270,flip=hv", "rotate=90"),
    ("rotate=180,flip=hv", "full"),
]

BAD = [
    ("", "''", "<width>x<height>"),
    ("x", "'x'", "<width>x<height>"),
    ("abc", "'abc'", "full"),
    ("100", "'100'", "<width>x<height>"),
    ("-5x5", "'-5x5'", "<width>x<height>"),
    ("1.5x2", "'1.5x2'", "<width>x<height>"),
    ("１００x", "'１００x'", "<width>x<height>"),
    ("200X100", "'200X100'", "<width>x<height>"),
    ("200x100 ", "'200x100 '", "<width>x<height>"),
    ("0x100", "'0'", "from 1 up to"),
    ("1000000x", "'1000000'", "whole number of pixels"),
    ("99999999999999999999x", "'99999999999999999999'", "whole number of pixels"),
    ("200x100,", "''", "quality"),
    ("200x100,300x", "'300x'", "quality"),
    ("rotate=90,200x100", "'200x100'", "quality"),
    ("200x100,fits=cover", "'fits'", "fit, gravity"),
    ("200x100,FIT=cover", "'FIT'", "fit, gravity"),
    ("200x100,fit=crop", "'crop'", "inside, cover, fill, outside, top"),
    ("200x100,fit=", "''", "inside, cover"),
    ("200x100,fit=cover,fit=cover", "'fit'", "twice"),
    ("200x,width=100", "'width'", "twice"),
    ("fit=cover", "fit=cover", "needs a size"),
    ("200x,fit=top", "fit=top", "both width and height"),
    ("9x9,fit=cover,gravity=middle", "'middle'", "attention"),
    ("9x9,fit=cover,gravity=1.5:0", "1.5", "from 0 to 1"),
    ("9x9,fit=cover,gravity=0.5", "'0.5'", "x:y"),
    ("9x9,gravity=north", "gravity=north", "fit=cover"),
    ("9x,fit=cover,gravity=north", "gravity=north", "width and height"),
    ("crop=1:2:3", "'1:2:3'", "x:y:width:height"),
    ("crop=1:2:3:-4", "'1:2:3:-4'", "x:y:width:height"),
    ("crop=1:2:0:4", "1:2:0:4", "more than 0"),
    ("crop=0.0:0.0:0.00001:0.5", "crop=", "more than 0"),
    ("crop=1.0:0.0:0.5:0.5", "crop=1.0:0.0:0.5:0.5", "below 1"),
    ("crop=0.1:0:2:1", "2", "from 0 to 1"),
    ("rotate=45", "'45'", "0, 90, 180, 270"),
    ("rotate=-90", "'-90'", "0, 90, 180, 270"),
    ("rotate=45,flip=hv", "'45'", "0, 90, 180, 270"),
    ("flip=x", "'x'", "h, v, hv"),
    ("200x,dpr=9", "9", "from 1 to 8"),
    ("200x,dpr=0.5", "0.5", "from 1 to 8"),
    ("200x,dpr=nan", "nan", "from 1 to 8"),
    ("200x,dpr=1e0", "'1e0'", "from 1 to 8"),
    ("dpr=2", "dpr=2", "needs a size"),
    ("background=ggg", "'ggg'", "hex"),
    ("background=ffff", "'ffff'", "hex"),
    ("background=transparent", "'transparent'", "hex"),
    ("quality=0", "'0'", "1 to 100"),
    ("quality=101", "'101'", "1 to 100"),
    ("quality=high", "'high'", "1 to 100"),
    ("lossless=yes", "'yes'", "true, false"),
    ("lossless=true,quality=70", "quality", "one of them"),
    ("lossless=true,format=jpg", "jpg", "png, webp, avif"),
    ("quality=70,format=png", "png", "jpg, webp, avif"),
    ("format=tiff", "'tiff'", "jpg, png, gif, webp, avif"),
    ("format=exe", "'exe'", "jpg, png, gif, webp, avif"),
    ("200x100,sepia=1", "'sepia'", "width, height, fit"),
    ("q" * 500 + "=1", "'" + "q" * 64 + "…'", "fit, gravity"),
]

fractions = st.integers(0, 10_000).map(lambda n: n / 10_000)
above_zero = st.integers(1, 10_000).map(lambda n: n / 10_000)
below_one = st.integers(0, 9_999).map(lambda n: n / 10_000)
sides = st.integers(1, 999_999)
pixel_regions = st.builds(Region, x=st.integers(0, 999_999), y=st.integers(0, 999_999), width=sides, height=sides)
fraction_regions = st.builds(
    Region, x=below_one, y=below_one, width=above_zero, height=above_zero, unit=st.just("fraction")
)
gravities: st.SearchStrategy[Gravity] = st.one_of(
    st.sampled_from(GRAVITIES), st.builds(Focal, x=fractions, y=fractions)
)


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    """Draw any transform that may be."""
    size: dict[str, Any] = draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"width": sides}),
            st.fixed_dictionaries({"height": sides}),
            st.fixed_dictionaries({"width": sides, "height": sides}),
        )
    )
    fits = [fit for fit in FITS if fit != "top" or len(size) == 2] if size else ["inside"]
    fit: Fit = draw(st.sampled_from(fits))
    name = draw(st.none() | st.sampled_from(WRITABLE))
    able = None if name is None else by_name(name)
    lossless = draw(st.booleans()) and (able is None or able.lossless)
    with_quality = not lossless and (able is None or able.default_quality is not None)
    return Transform(
        **size,
        fit=fit,
        gravity=draw(gravities) if fit == "cover" and len(size) == 2 else "center",
        crop=draw(st.none() | pixel_regions | fraction_regions),
        rotate=draw(st.sampled_from((0, 90, 180, 270))),
        flip=draw(st.sampled_from(("", "h", "v"))),
        dpr=draw(st.integers(100, 800)) / 100 if size else 1,
        background=draw(st.none() | st.from_regex(r"[0-9a-f]{6}", fullmatch=True)),
        quality=draw(st.none() | st.integers(1, 100)) if with_quality else None,
        lossless=lossless,
        format=name,
    )


@pytest.mark.parametrize(("text", "transform"), INVERSES)
def test_parse_and_text_are_inverses(text: str, transform: Transform) -> None:
    assert Transform.parse(text) == transform
    assert transform.text == text


@pytest.mark.parametrize(("text", "canonical"), [pair for pair in SAME if pair[1]])
def test_one_meaning_has_one_text(text: str, canonical: str) -> None:
    assert Transform.parse(text).text == canonical
    assert Transform.parse(text) == Transform.parse(canonical)


@pytest.mark.parametrize("text", [text for text, canonical in SAME if canonical is None])
def test_a_size_stands_first(text: str) -> None:
    with pytest.raises(BadTransform, match="'200x100'"):
        Transform.parse(text)


@pytest.mark.parametrize(("text", "offending", "accepted"), BAD)
def test_a_bad_token_is_named_together_with_what_is_accepted(text: str, offending: str, accepted: str) -> None:
    with pytest.raises(BadTransform) as caught:
        Transform.parse(text)
    assert offending in str(caught.value)
    assert accepted in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_option_is_in_the_tables() -> None:
    assert {o.name for o in OPTIONS if not any(f"{o.name}=" in text for text, _ in INVERSES)} == set()
    assert {o.name for o in OPTIONS if not any(f"{o.name}=" in text for text, _, _ in BAD)} == set()


@given(transforms())
def test_every_transform_is_read_from_its_own_text(transform: Transform) -> None:
    assert Transform.parse(transform.text) == transform


@given(transforms(), transforms())
def test_different_transforms_have_different_texts(one: Transform, other: Transform) -> None:
    assert (one == other) == (one.text == other.text)


@given(transforms())
def test_the_stem_leaves_out_the_format_alone(transform: Transform) -> None:
    assert Transform.parse(transform.stem) == Transform.parse(
        transform.text.replace(_format(transform), "") or "full"
    )


def _format(transform: Transform) -> str:
    alone = transform.stem == "full"
    return (
        "" if transform.format is None else f"format={transform.format}" if alone else f",format={transform.format}"
    )


@given(transforms())
def test_a_text_is_a_file_name_on_any_system(transform: Transform) -> None:
    assert len(transform.text.encode()) < 200
    assert not set(transform.text) & set('/\\"<>|?* \0%')


pieces = st.sampled_from([*(text for text, _ in INVERSES), *(a for a, _ in SAME), *(b[0] for b in BAD)])
texts = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="0123456789xfitcropgravy=:,.-#hvé", max_size=30),
    st.lists(pieces, min_size=1, max_size=4).map(",".join),
)


@given(texts)
@example("200x100,gravity=0.5:0.5")
def test_canonical_text_is_a_fixed_point_and_nothing_else_is_raised(text: str) -> None:
    try:
        transform = Transform.parse(text)
    except BadTransform:
        return
    assert Transform.parse(transform.text) == transform
    assert Transform.parse(transform.text).text == transform.text


FLIPPED = {"": lambda a: a, "h": np.fliplr, "v": np.flipud, "hv": lambda a: np.flipud(np.fliplr(a))}
PICTURE = np.arange(6).reshape(2, 3)


def _turned(rotate: int, flip: str) -> npt.NDArray[Any]:
    """Rotate clockwise, then flip, by numpy alone."""
    turned: npt.NDArray[Any] = FLIPPED[flip](np.rot90(PICTURE, -rotate // 90))
    return turned


def _carried_out(turn: Turn) -> npt.NDArray[Any]:
    turned = np.rot90(PICTURE, -turn.quarters)
    return np.fliplr(turned) if turn.mirror else turned


TURNS = list(product((0, 90, 180, 270), ("", "h", "v", "hv")))


@pytest.mark.parametrize(("one", "other"), list(combinations(TURNS, 2)))
def test_turns_have_the_same_text_exactly_when_they_do_the_same(one: tuple[int, str], other: tuple[int, str]) -> None:
    texts = [_turn(*pair).text for pair in (one, other)]
    assert (texts[0] == texts[1]) == np.array_equal(_turned(*one), _turned(*other))


@pytest.mark.parametrize(("rotate", "flip"), TURNS)
def test_the_turn_of_a_transform_turns_as_numpy_does(rotate: int, flip: str) -> None:
    assert np.array_equal(_carried_out(Turn.of(_turn(rotate, flip))), _turned(rotate, flip))


def _turn(rotate: int, flip: str) -> Transform:
    return Transform.from_options([("rotate", str(rotate))] + ([("flip", flip)] if flip else []))


def test_a_query_is_read_like_the_text() -> None:
    pairs = [("height", "100"), ("fit", "cover"), ("width", "200"), ("format", "jpeg")]
    assert Transform.from_options(pairs).text == "200x100,fit=cover,format=jpg"


def test_a_decided_format_drops_a_quality_it_does_not_have() -> None:
    assert Transform.parse("200x,quality=70").as_format("png").text == "200x,format=png"
    assert Transform.parse("200x,quality=70").as_format("webp").text == "200x,quality=70,format=webp"


def test_a_format_that_a_person_names_must_go_with_the_rest() -> None:
    assert Transform.parse("200x").with_format("jpeg").format == "jpg"
    with pytest.raises(BadTransform, match="quality=70"):
        Transform.parse("200x,quality=70").with_format("png")
    with pytest.raises(BadTransform, match="'docx'"):
        Transform().with_format("docx")


@pytest.mark.parametrize("unit", ["px", "fraction"])
def test_only_the_whole_image_is_the_identity(unit: Literal["px", "fraction"]) -> None:
    assert Transform(format="webp").is_identity
    assert not Transform(crop=Region(x=0, y=0, width=1, height=1, unit=unit)).is_identity
    assert not Transform(quality=70).is_identity


def test_a_side_that_no_text_can_say_is_refused() -> None:
    """Otherwise a transform built in Python would have a URL that cannot be read."""
    with pytest.raises(BadTransform, match="width='1000000'"):
        Transform(width=1_000_000)
    with pytest.raises(BadTransform, match="height='1000000'"):
        Transform(height=1_000_000)


@pytest.mark.parametrize("value", [1_000_000, 0.5, -1, float("nan"), float("inf")])
def test_a_region_that_no_text_can_say_is_refused(value: float) -> None:
    with pytest.raises(BadTransform, match="crop"):
        Region(x=value, y=0, width=1, height=1)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"background": "Red"}, "background=ff0000"),
        ({"background": "#ABC"}, "background=aabbcc"),
        ({"flip": "hv"}, "rotate=180"),
        ({"flip": "hv", "rotate": 90}, "rotate=270"),
        ({"format": "jpeg"}, "format=jpg"),
        ({"width": 9, "height": 9, "fit": "cover", "gravity": "top"}, "9x9,fit=cover,gravity=north"),
        ({"width": 9, "dpr": 4 / 3}, "9x,dpr=1.33"),
        ({"width": 9, "dpr": True}, "9x"),
        ({"lossless": 1}, "lossless=true"),
    ],
)
def test_values_are_brought_to_their_one_form(values: dict[str, Any], text: str) -> None:
    assert Transform(**values).text == text
    assert Transform(**values) == Transform.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        {"width": 1.5},
        {"width": 2.0},
        {"width": True},
        {"height": float("nan")},
        {"width": "٣"},
        {"width": 9, "dpr": float("nan")},
        {"width": 9, "dpr": float("inf")},
        {"quality": 7.5},
        {"rotate": 45},
        {"rotate": None},
        {"gravity": None},
        {"gravity": 0.5},
        {"crop": (0, 0, 1, 1)},
        {"flip": "x"},
        {"lossless": 2},
        {"lossless": None},
        {"background": (255, 0, 0)},
        {"format": "tiff"},
    ],
)
def test_a_value_of_another_kind_is_refused(values: dict[str, Any]) -> None:
    """It would end up in keys and addresses that nobody can read."""
    with pytest.raises(BadTransform, match=f"{list(values)[-1]}=.* is not accepted"):
        Transform(**values)
