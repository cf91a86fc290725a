"""From a transform and a probe to integers: every fit, crop and turn, and never over a limit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_transform import fraction_regions, gravities

from lazypix.errors import BadTransform, TooLarge
from lazypix.formats import by_name
from lazypix.plan import Box, Limits, Plan, Probe, Smart, Turn, check_probe, check_size, make_plan
from lazypix.tokens import Region
from lazypix.transform import Transform

LIMITS = Limits()
ORIENTATIONS = tuple(range(1, 9))
Picture = npt.NDArray[Any]


def _plan(text: str, width: int, height: int, limits: Limits = LIMITS, **probe: Any) -> Plan:
    found = Probe(**{"format": "png", "width": width, "height": height, **probe})
    transform = Transform.parse(text)
    return make_plan(transform if transform.format else transform.as_format("jpg"), found, limits)


# text, size of the image, size to scale to, what is cut out of that (left, top, width, height)
FITS = [
    ("full", (400, 200), (400, 200), None),
    ("quality=70", (400, 200), (400, 200), None),
    # inside: never enlarged
    ("200x100", (400, 200), (200, 100), None),
    ("200x100", (400, 100), (200, 50), None),
    ("200x100", (100, 400), (25, 100), None),
    ("200x100", (100, 50), (100, 50), None),
    ("200x100", (200, 100), (200, 100), None),
    ("200x100", (200, 101), (198, 100), None),
    ("800x800", (400, 200), (400, 200), None),
    ("200x", (400, 300), (200, 150), None),
    ("x100", (400, 300), (133, 100), None),
    ("800x", (400, 300), (400, 300), None),
    ("x800", (400, 300), (400, 300), None),
    ("100x", (3000, 1), (100, 1), None),
    ("1x1", (8000, 10), (1, 1), None),
    ("3x", (6, 5), (3, 3), None),  # 2.5 is rounded half up
    # cover: exactly, enlarged if need be
    ("200x100,fit=cover", (400, 200), (200, 100), None),
    ("200x100,fit=cover", (400, 400), (200, 200), (0, 50, 200, 100)),
    ("200x100,fit=cover", (800, 200), (400, 100), (100, 0, 200, 100)),
    ("200x100,fit=cover", (20, 20), (200, 200), (0, 50, 200, 100)),
    ("100x100,fit=cover", (201, 100), (201, 100), (50, 0, 100, 100)),
    ("100x100,fit=cover,gravity=north", (100, 300), (100, 300), (0, 0, 100, 100)),
    ("100x100,fit=cover,gravity=south", (100, 300), (100, 300), (0, 200, 100, 100)),
    ("100x100,fit=cover,gravity=east", (100, 300), (100, 300), (0, 100, 100, 100)),
    ("100x100,fit=cover,gravity=west", (300, 100), (300, 100), (0, 0, 100, 100)),
    ("100x100,fit=cover,gravity=east", (300, 100), (300, 100), (200, 0, 100, 100)),
    ("100x100,fit=cover,gravity=north", (300, 100), (300, 100), (100, 0, 100, 100)),
    ("100x100,fit=cover,gravity=northwest", (300, 100), (300, 100), (0, 0, 100, 100)),
    ("100x100,fit=cover,gravity=northeast", (100, 300), (100, 300), (0, 0, 100, 100)),
    ("100x100,fit=cover,gravity=southeast", (300, 100), (300, 100), (200, 0, 100, 100)),
    ("100x100,fit=cover,gravity=southwest", (100, 300), (100, 300), (0, 200, 100, 100)),
    # portrait: excess height is lost one part above to three below, excess width on both sides
    ("100x100,fit=cover,gravity=portrait", (100, 300), (100, 300), (0, 50, 100, 100)),
    ("100x100,fit=cover,gravity=portrait", (200, 600), (100, 300), (0, 50, 100, 100)),
    ("100x100,fit=cover,gravity=portrait", (10, 18), (100, 180), (0, 20, 100, 100)),
    ("100x100,fit=cover,gravity=portrait", (300, 100), (300, 100), (100, 0, 100, 100)),
    # a focal point comes as near to the middle as the edges allow
    ("100x100,fit=cover,gravity=0.5:0.25", (100, 400), (100, 400), (0, 50, 100, 100)),
    ("100x100,fit=cover,gravity=0:0", (100, 400), (100, 400), (0, 0, 100, 100)),
    ("100x100,fit=cover,gravity=1:1", (100, 400), (100, 400), (0, 300, 100, 100)),
    ("100x100,fit=cover,gravity=0.6:0", (400, 100), (400, 100), (190, 0, 100, 100)),
    # top: the width in proportion, the top rows
    ("100x100,fit=top", (200, 400), (100, 200), (0, 0, 100, 100)),
    ("100x100,fit=top", (200, 100), (100, 50), None),
    ("100x100,fit=top", (10, 20), (100, 200), (0, 0, 100, 100)),
    ("100x100,fit=top", (200, 200), (100, 100), None),
    # outside: no side smaller than the box
    ("200x100,fit=outside", (400, 400), (200, 200), None),
    ("200x100,fit=outside", (800, 200), (400, 100), None),
    ("200x100,fit=outside", (20, 20), (200, 200), None),
    ("200x,fit=outside", (100, 50), (200, 100), None),
    ("x100,fit=outside", (100, 50), (200, 100), None),
    ("50x,fit=outside", (100, 75), (50, 38), None),
    # fill: stretched
    ("200x100,fit=fill", (10, 1000), (200, 100), None),
    # dpr multiplies the box
    ("200x100,dpr=2", (4000, 4000), (200, 200), None),
    ("101x,dpr=1.5,fit=outside", (100, 100), (152, 152), None),
    ("100x50,fit=cover,dpr=2", (400, 400), (200, 200), (0, 50, 200, 100)),
    ("200x,dpr=2", (300, 300), (300, 300), None),
    # turns come before the size
    ("200x,rotate=90", (400, 100), (100, 400), None),
    ("100x100,rotate=90", (400, 100), (25, 100), None),
    ("100x50,fit=cover,gravity=north,rotate=90", (200, 100), (100, 200), (0, 0, 100, 50)),
    # a region counts as the whole image
    ("50x,crop=100:0:100:200", (400, 200), (50, 100), None),
    ("200x100,crop=0:0:50:50", (400, 200), (50, 50), None),
]


@pytest.mark.parametrize(("text", "image", "scaled", "cut"), FITS)
def test_fit_arithmetic(
    text: str, image: tuple[int, int], scaled: tuple[int, int], cut: tuple[int, int, int, int] | None
) -> None:
    plan = _plan(text, *image)
    assert plan.turn.size(plan.width, plan.height) == scaled
    assert plan.crop == (cut and Box(left=cut[0], top=cut[1], width=cut[2], height=cut[3]))
    assert plan.size == (cut[2:] if cut else scaled)


@pytest.mark.parametrize("by", ["attention", "entropy"])
def test_a_smart_crop_is_left_to_the_engine(by: str) -> None:
    plan = _plan(f"100x50,fit=cover,gravity={by}", 400, 400)
    assert isinstance(plan.crop, Smart)
    assert (plan.crop.width, plan.crop.height, plan.crop.by) == (100, 50, by)
    assert (plan.width, plan.height) == (100, 100)


REGIONS = [
    ("0:0:100:49", (0, 0, 100, 49)),
    ("10:20:30:25", (10, 20, 30, 25)),
    ("10:20:30:40", (10, 20, 30, 30)),
    ("90:40:100:100", (90, 40, 10, 10)),  # over the edge: cut at the edge
    ("0:0:9999:1", (0, 0, 100, 1)),
    ("99:49:1:1", (99, 49, 1, 1)),
    ("0.5:0.5:0.5:0.5", (50, 25, 50, 25)),
    ("0.1:0.1:0.5:0.5", (10, 5, 50, 25)),
    ("0.9:0.0:0.9:1.0", (90, 0, 10, 50)),
    ("0.9999:0.9999:0.0001:0.0001", (99, 49, 1, 1)),  # never less than a pixel
    ("0.29:0.0:0.57:1.0", (29, 0, 57, 50)),  # 0.29 * 100 is 28.999999999999996 in binary
    ("0.28:0.58:0.29:0.42", (28, 29, 29, 21)),
    ("0:0:100:100", None),  # the whole image
    ("0.0:0.0:1.0:1.0", None),
]


@pytest.mark.parametrize(("region", "box"), REGIONS)
def test_regions_in_pixels_and_in_fractions(region: str, box: tuple[int, int, int, int] | None) -> None:
    plan = _plan(f"crop={region}", 100, 50)
    expected = box and Box(left=box[0], top=box[1], width=box[2], height=box[3])
    assert plan.region == expected
    assert plan.size == (box[2:] if box else (100, 50))


@pytest.mark.parametrize("region", ["100:0:1:1", "0:50:1:1", "5000:5000:10:10"])
def test_a_region_outside_of_the_image_is_refused(region: str) -> None:
    with pytest.raises(BadTransform, match="outside of the image of 100x50"):
        _plan(f"crop={region}", 100, 50)


@pytest.mark.parametrize("unit", ["px", "fraction"])
def test_a_region_is_of_the_upright_image(unit: str) -> None:
    region = "crop=0:0:50:50" if unit == "px" else "crop=0.0:0.0:1.0:0.5"
    plan = _plan(region, 100, 50, orientation=6)  # upright: 50x100
    assert plan.region == Box(left=0, top=0, width=50, height=50)
    plan = _plan(region, 100, 50, orientation=8)  # its top is the stored image's right side
    assert plan.region == Box(left=50, top=0, width=50, height=50)


# --- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["8193x", "x8193", "8193x1,fit=fill", "4097x,dpr=2", "1025x1,dpr=8", "999999x"])
def test_a_side_over_the_limit_is_refused_before_any_image_is_known(text: str) -> None:
    with pytest.raises(BadTransform, match="over the limit of 8192"):
        check_size(Transform.parse(text), LIMITS)
    with pytest.raises(BadTransform, match="over the limit of 8192"):
        _plan(text, 10, 10)


def test_a_side_at_the_limit_is_fine() -> None:
    assert _plan("8192x1,fit=fill", 10, 10).size == (8192, 1)
    assert _plan("1024x1,dpr=8,fit=fill", 10, 10).size == (8192, 8)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("8192x,fit=outside", (10, 11)),  # the other side follows from the ratio
        ("100x,fit=outside", (1, 8000)),
        ("full,format=webp", (16_384, 10)),  # more than the format can hold
        ("8000x8000,fit=cover", (1, 8000)),  # would be 8000 x 64 000 000 on the way
        ("8192x8192,fit=top", (1, 8000)),
        ("8192x1,fit=cover", (10, 800)),
    ],
)
def test_a_result_or_a_way_to_it_over_the_limits_is_refused(text: str, image: tuple[int, int]) -> None:
    with pytest.raises(BadTransform, match="over"):
        _plan(text, *image)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("full", (10_000, 10)),
        ("rotate=90", (10, 10_000)),
        ("crop=0:0:9000:10", (9000, 10)),
        ("quality=50", (10_000, 10)),
    ],
)
def test_what_asks_for_no_size_may_be_as_large_as_the_original(text: str, size: tuple[int, int]) -> None:
    assert _plan(text, 10_000, 10).size == size


@pytest.mark.parametrize(
    ("text", "limits", "frames"),
    [
        ("8192x8192,fit=fill", LIMITS, 1),  # 67 megapixels; 50 are allowed
        ("1001x1000,fit=fill", Limits(max_pixels=1_000_000), 1),
        ("1000x1000,fit=fill,format=webp", LIMITS, 51),
    ],
)
def test_a_result_over_the_limit_of_pixels_is_refused(text: str, limits: Limits, frames: int) -> None:
    """`Limits.max_pixels` is "summed over its frames; of originals and of results"."""
    with pytest.raises(BadTransform, match="megapixels"):
        _plan(text, 10, 10, limits, frames=frames, format="gif")


def test_frames_that_the_format_does_not_take_do_not_count() -> None:
    assert _plan("1000x1000,fit=fill,format=jpg", 10, 10, frames=90, format="gif").frames == 1
    assert _plan("10x10,format=webp", 10, 10, frames=90, format="gif").frames == 90


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Probe(format="png", width=60_000, height=60_000), "60000x60000, 3600.0 megapixels; at most 50"),
        (Probe(format="gif", width=10, height=10, frames=101), "101 frames; at most 100"),
        (Probe(format="gif", width=1000, height=1000, frames=51), "51 frames, 51.0 megapixels"),
    ],
)
def test_an_original_over_the_limits_is_refused(probe: Probe, message: str) -> None:
    with pytest.raises(TooLarge, match=message):
        check_probe(probe, LIMITS)


def test_an_original_at_the_limits_is_fine() -> None:
    at_limit = Probe(format="gif", width=1000, height=500, frames=100)
    assert check_probe(at_limit, LIMITS) is at_limit


# --- turns -----------------------------------------------------------------------------------------------------

TURNS = [Turn(quarters=quarters, mirror=mirror) for quarters, mirror in product(range(4), (False, True))]


def _turned(picture: Picture, turn: Turn) -> Picture:
    quarters = np.rot90(picture, -turn.quarters)
    return np.fliplr(quarters) if turn.mirror else quarters


def _picture(width: int, height: int) -> Picture:
    return np.arange(width * height).reshape(height, width)


# How each EXIF orientation lays an upright picture down. Source: Exif 2.32, 4.6.4 A, tag 0x0112: where the
# stored row 0 and column 0 are in the upright picture.
STORED: dict[int, Any] = {
    1: lambda a: a,
    2: np.fliplr,  # top, right
    3: lambda a: np.rot90(a, 2),  # bottom, right
    4: np.flipud,  # bottom, left
    5: np.transpose,  # left, top
    6: np.rot90,  # right, top: lies a quarter turn to the left
    7: lambda a: np.transpose(np.rot90(a, 2)),  # right, bottom
    8: lambda a: np.rot90(a, -1),  # left, bottom
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    upright = _picture(3, 2)
    assert np.array_equal(_turned(STORED[orientation](upright), Turn.exif(orientation)), upright)
    stored_height, stored_width = STORED[orientation](upright).shape
    probe = Probe(format="jpg", width=stored_width, height=stored_height, orientation=orientation)
    assert probe.upright_size == (3, 2)


@pytest.mark.parametrize("orientation", [0, 9, 255, -1])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    assert Turn.exif(orientation) == Turn()


@pytest.mark.parametrize(("first", "second"), list(product(TURNS, TURNS)))
def test_two_turns_are_one(first: Turn, second: Turn) -> None:
    picture = _picture(3, 2)
    assert np.array_equal(_turned(_turned(picture, first), second), _turned(picture, first.then(second)))


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_size_is_the_turned_pictures_size(turn: Turn) -> None:
    height, width = _turned(_picture(3, 2), turn).shape
    assert turn.size(3, 2) == (width, height)


@pytest.mark.parametrize("turn", TURNS)
def test_the_source_of_a_box_is_where_its_pixels_were(turn: Turn) -> None:
    stored = _picture(5, 3)
    turned = _turned(stored, turn)
    height, width = turned.shape
    for left, top in product(range(width), range(height)):
        for wide, high in product(range(1, width - left + 1), range(1, height - top + 1)):
            source = turn.source_of(Box(left=left, top=top, width=wide, height=high), width, height)
            piece = _turned(_cut(stored, source), turn)
            assert np.array_equal(piece, turned[top : top + high, left : left + wide])


def _cut(picture: Picture, box: Box) -> Picture:
    assert box.left >= 0
    assert box.top >= 0
    return picture[box.top : box.top + box.height, box.left : box.left + box.width]


# --- what the engine is told -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text", "image", "shrink"),
    [
        ("jpg", "100x", (1600, 1600), 8),
        ("jpg", "100x", (1199, 1199), 4),
        ("jpg", "100x", (1359, 1359), 4),
        ("jpg", "100x", (1360, 1360), 8),
        ("jpg", "100x", (799, 799), 2),
        ("jpg", "100x", (300, 300), 2),
        ("jpg", "100x", (260, 260), 2),
        ("jpg", "100x", (259, 259), 1),
        ("jpg", "100x,fit=outside", (50, 50), 1),
        ("jpg", "full", (1600, 1600), 1),
        ("jpg", "100x100,fit=fill", (1600, 150), 1),  # the side that shrinks least decides
        ("jpg", "100x,crop=0:0:300:300", (1600, 1600), 2),
        ("webp", "100x", (1650, 1650), 11),
        ("webp", "100x", (299, 299), 1),
        ("png", "100x", (1600, 1600), 1),
    ],
)
def test_the_decoder_shrinks_but_leaves_enough_to_shrink(
    source: str, text: str, image: tuple[int, int], shrink: int
) -> None:
    assert _plan(text, *image, format=source).shrink == shrink


@pytest.mark.parametrize(
    ("text", "alpha", "background"),
    [
        ("format=jpg", True, "ffffff"),
        ("format=jpg", False, None),
        ("format=png", True, None),
        ("format=jpg,background=ff8800", True, "ff8800"),
        ("format=png,background=ff8800", True, "ff8800"),
        ("format=png,background=ff8800", False, None),
    ],
)
def test_what_is_put_behind_transparency(text: str, alpha: bool, background: str | None) -> None:
    assert _plan(text, 10, 10, alpha=alpha).background == background


@pytest.mark.parametrize("name", ["jpg", "webp", "avif", "png", "gif"])
def test_the_format_says_the_default_quality(name: str) -> None:
    assert _plan(f"format={name}", 10, 10).quality == by_name(name).default_quality
    if by_name(name).default_quality:
        assert _plan(f"quality=33,format={name}", 10, 10).quality == 33


# --- for all images and all transforms -------------------------------------------------------------------------

probes = st.builds(
    Probe,
    format=st.sampled_from(("jpg", "png", "gif", "webp")),
    width=st.integers(1, 12_000) | st.integers(1, 60),
    height=st.integers(1, 4_000) | st.integers(1, 60),
    frames=st.integers(1, 100),
    orientation=st.integers(1, 8),
    alpha=st.booleans(),
)
boxes = st.integers(1, 9_000) | st.integers(1, 60)
small_regions = st.builds(
    Region, x=st.integers(0, 100), y=st.integers(0, 100), width=boxes, height=boxes, unit=st.just("px")
)
LIMITS_TRIED = st.sampled_from((LIMITS, Limits(max_pixels=1_000_000, max_side=2000)))


@st.composite
def planned(draw: st.DrawFn) -> tuple[Transform, Probe, Limits, Plan | None]:
    """Draw a transform of an image, and its plan, which is None when it was refused."""
    fit = draw(st.sampled_from(("inside", "cover", "fill", "outside", "top")))
    both = fit == "top" or draw(st.booleans())
    transform = Transform(
        width=draw(boxes),
        height=draw(boxes) if both else None,
        fit=fit,  # type: ignore[arg-type]
        gravity=draw(gravities) if fit == "cover" and both else "center",
        crop=draw(st.none() | small_regions | fraction_regions),
        rotate=draw(st.sampled_from((0, 90, 180, 270))),
        flip=draw(st.sampled_from(("", "h", "v"))),
        dpr=draw(st.sampled_from((1, 1, 1.5, 2, 3.33))),
        format=draw(st.sampled_from(("jpg", "webp"))),
    )
    probe, limits = draw(probes), draw(LIMITS_TRIED)
    try:
        return transform, probe, limits, make_plan(transform, probe, limits)
    except BadTransform:
        return transform, probe, limits, None


@given(planned())
def test_no_output_is_over_the_limits(drawn: tuple[Transform, Probe, Limits, Plan | None]) -> None:
    _, _, limits, plan = drawn
    if plan is not None:
        assert min(plan.size) >= 1
        assert max(plan.size) <= limits.max_side
        assert plan.size[0] * plan.size[1] * plan.frames <= limits.max_pixels
        assert plan.frames <= limits.max_frames


@given(planned())
def test_every_cut_lies_inside_of_what_it_is_cut_from(drawn: tuple[Transform, Probe, Limits, Plan | None]) -> None:
    _, probe, _, plan = drawn
    if plan is None:
        return
    if plan.region is not None:
        _assert_inside(plan.region, probe.width, probe.height)
    wide, high = plan.turn.size(plan.width, plan.height)
    if isinstance(plan.crop, Box):
        _assert_inside(plan.crop, wide, high)
    if isinstance(plan.crop, Smart):
        assert plan.crop.width <= wide
        assert plan.crop.height <= high


def _assert_inside(box: Box, width: int, height: int) -> None:
    assert box.left >= 0
    assert box.top >= 0
    assert box.width >= 1
    assert box.height >= 1
    assert box.left + box.width <= width
    assert box.top + box.height <= height


@given(planned())
def test_the_size_is_what_the_fit_promises(drawn: tuple[Transform, Probe, Limits, Plan | None]) -> None:
    transform, probe, _, plan = drawn
    if plan is None:
        return
    wide, high = plan.size
    box_width = round((transform.width or 0) * transform.dpr)
    box_height = round(transform.height * transform.dpr) if transform.height else None
    source = (plan.region.width, plan.region.height) if plan.region else (probe.width, probe.height)
    whole = plan.turn.size(*source)
    if transform.fit == "inside":
        assert wide <= min(box_width, whole[0])
        assert high <= min(box_height or whole[1], whole[1])
        assert wide == whole[0] or wide == box_width or high == box_height
    elif transform.fit in ("cover", "fill"):
        assert (wide, high) == (box_width, box_height)
    elif transform.fit == "top":
        assert wide == box_width
        assert box_height is not None
        assert high <= box_height
    else:
        assert wide == box_width or high == box_height
        assert wide >= box_width
        assert high >= (box_height or 1)


@given(planned())
def test_proportions_are_kept_to_a_pixel(drawn: tuple[Transform, Probe, Limits, Plan | None]) -> None:
    transform, probe, _, plan = drawn
    if plan is None or transform.fit == "fill":
        return
    source = plan.region or Box(left=0, top=0, width=probe.width, height=probe.height)
    by_width, by_height = plan.width / source.width, plan.height / source.height
    assert abs(by_width * source.height - plan.height) <= 1 or abs(by_height * source.width - plan.width) <= 1


@given(planned())
def test_the_decoder_never_shrinks_below_the_size(drawn: tuple[Transform, Probe, Limits, Plan | None]) -> None:
    _, probe, _, plan = drawn
    if plan is not None and plan.shrink > 1:
        source = plan.region or Box(left=0, top=0, width=probe.width, height=probe.height)
        assert source.width / plan.shrink >= 1.3 * plan.width
        assert source.height / plan.shrink >= 1.3 * plan.height
