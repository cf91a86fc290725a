"""What the engine makes, judged by its decoded pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from tests.engine import pictures as p
from tests.engine.pictures import BLACK, BLUE, CORNERS, GREEN, RED, WHITE, YELLOW

from lazypix.engine.render import inspect, render
from lazypix.formats import READABLE, WRITABLE, sniff
from lazypix.plan import Limits, make_plan
from lazypix.transform import Transform

File = Callable[[bytes], str]
LIMITS = Limits()
PILLOW = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF"}


def _render(path: str, text: str, name: str = "png") -> bytes:
    transform = Transform.parse(text)
    decided = transform if transform.format else transform.as_format(name)
    return render(path, make_plan(decided, inspect(path, LIMITS), LIMITS))


def _seen(path: str, text: str, name: str = "png") -> Image.Image:
    return p.opened(_render(path, text, name))


# --- formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", WRITABLE)
@pytest.mark.parametrize("source", READABLE)
def test_every_format_becomes_every_format(file: File, source: str, target: str) -> None:
    path = file(p.encoded(p.quadrants(), source))
    body = _render(path, "60x", target)
    found = p.opened(body)
    recognised = sniff(body[:64])
    assert recognised is not None
    assert recognised.name == target
    assert found.format == PILLOW[target]
    assert found.size == (60, 40)
    assert found.mode in {"gif": ("P", "RGB", "RGBA"), "png": ("RGB", "RGBA"), "webp": ("RGB", "RGBA")}.get(
        target, ("RGB",)
    )
    assert p.looks_like(p.corners_of(found), CORNERS, within=20)


@pytest.mark.parametrize("name", ["png", "webp"])
def test_lossless_keeps_every_pixel(file: File, name: str) -> None:
    picture = p.noise(70, 50)
    found = _seen(file(p.encoded(picture)), "lossless=true", name)
    assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(picture))


def test_lossless_avif_keeps_every_pixel_to_a_step(file: File) -> None:
    picture = p.noise(70, 50)
    found = _seen(file(p.encoded(picture)), "lossless=true", "avif")
    difference = np.asarray(found.convert("RGB")).astype(int) - np.asarray(picture)
    assert np.abs(difference).max() <= 2  # its YCbCr rounds


@pytest.mark.parametrize("name", ["jpg", "webp", "avif"])
def test_quality_decides_how_large_and_how_true(file: File, name: str) -> None:
    picture = p.photograph(150, 100)
    path = file(p.encoded(picture))
    low, high = (_render(path, f"quality={quality}", name) for quality in (20, 95))
    assert len(low) < len(high) / 2
    errors = [np.abs(_array(body).astype(int) - np.asarray(picture)).mean() for body in (low, high)]
    assert errors[1] < errors[0]
    assert errors[1] < 4


def test_what_libvips_does_is_no_news_in_an_applications_log(file: File, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    _render(file(p.encoded(p.photograph(150, 100))), "60x,rotate=90", "webp")
    assert caplog.records == []


def test_a_jpeg_is_progressive(file: File) -> None:
    found = _seen(file(p.encoded(p.quadrants())), "full", "jpg")
    assert found.info.get("progressive") == 1


@pytest.mark.parametrize("target", WRITABLE)
@pytest.mark.parametrize("source", ["jpg", "png", "webp", "avif", "tiff"])
def test_metadata_is_left_out(file: File, source: str, target: str) -> None:
    data = p.with_metadata(p.quadrants(), source)
    assert b"SECRET" in data
    body = _render(file(data), "60x", target)
    found = p.opened(body)
    assert b"SECRET" not in body
    assert not found.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(found.info)


# --- size, crop, turn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jpg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("orientation", p.ORIENTATIONS)
def test_every_exif_orientation_is_shown_upright(file: File, orientation: int, name: str) -> None:
    path = file(p.oriented(p.quadrants(120, 80), orientation, name))
    assert inspect(path, LIMITS).upright_size == (120, 80)
    for text, size in (("full", (120, 80)), ("60x", (60, 40)), ("30x30,fit=fill", (30, 30))):
        found = _seen(path, text)
        assert found.size == size
        assert p.looks_like(p.corners_of(found), CORNERS, within=20)


@pytest.mark.parametrize("target", WRITABLE)
@pytest.mark.parametrize("orientation", p.ORIENTATIONS)
def test_a_viewer_has_nothing_to_turn(file: File, orientation: int, target: str) -> None:
    """AVIF says a turn in its container (`irot`, `imir`), which Pillow tells as an EXIF orientation."""
    path = file(p.oriented(p.quadrants(120, 80), orientation))
    for text, size in (("60x", (60, 40)), ("60x,rotate=90", (60, 90))):
        found = _seen(path, text, target)
        assert not found.getexif()
        shown = ImageOps.exif_transpose(found)
        assert shown.size == size
    assert p.looks_like(p.corners_of(ImageOps.exif_transpose(_seen(path, "60x", target))), CORNERS, within=20)


@pytest.mark.parametrize("orientation", p.ORIENTATIONS)
def test_a_region_is_cut_from_the_upright_image(file: File, orientation: int) -> None:
    path = file(p.oriented(p.quadrants(120, 80), orientation))
    for region, colour in (("0:0:60:40", RED), ("60:0:60:40", GREEN), ("0:40:60:40", BLUE), ("60:40:60:40", YELLOW)):
        found = _seen(path, f"crop={region}")
        assert found.size == (60, 40)
        assert p.looks_like(p.corners_of(found), [colour] * 4)
    assert p.looks_like([p.colour_at(_seen(path, "20x,crop=0.75:0.0:0.25:0.5"), 0.5, 0.5)], [GREEN])


TURNS = [
    ("rotate=90", (80, 120), (BLUE, RED, YELLOW, GREEN)),
    ("rotate=180", (120, 80), (YELLOW, BLUE, GREEN, RED)),
    ("rotate=270", (80, 120), (GREEN, YELLOW, RED, BLUE)),
    ("flip=h", (120, 80), (GREEN, RED, YELLOW, BLUE)),
    ("flip=v", (120, 80), (BLUE, YELLOW, RED, GREEN)),
    ("flip=hv", (120, 80), (YELLOW, BLUE, GREEN, RED)),
    ("rotate=90,flip=h", (80, 120), (RED, BLUE, GREEN, YELLOW)),
    ("rotate=90,flip=v", (80, 120), (YELLOW, GREEN, BLUE, RED)),
    ("crop=0:0:60:80,rotate=90", (80, 60), (BLUE, RED, BLUE, RED)),
    ("40x,rotate=90", (40, 60), (BLUE, RED, YELLOW, GREEN)),
]


@pytest.mark.parametrize(("text", "size", "corners"), TURNS)
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_turns(file: File, orientation: int, text: str, size: tuple[int, int], corners: tuple[p.Colour, ...]) -> None:
    found = _seen(file(p.oriented(p.quadrants(120, 80), orientation)), text)
    assert found.size == size
    assert p.looks_like(p.corners_of(found), corners)


@pytest.mark.parametrize("text", ["160x160,fit=cover,gravity=portrait", "40x40,fit=cover,gravity=portrait"])
def test_a_square_of_a_tall_image_loses_its_height_one_part_above_to_three_below(file: File, text: str) -> None:
    tall = p.bands(160, 320, 16)  # half of it is lost: 2 bands above, 6 below
    found = _seen(file(p.encoded(tall)), text)
    assert found.width == found.height
    assert p.looks_like([p.colour_at(found, 0.5, 1 / 16)], [(2 * 17, 0, 0)], within=4)
    assert p.looks_like([p.colour_at(found, 0.5, 15 / 16)], [(9 * 17, 0, 0)], within=4)


GRAVITIES = {
    "northwest": (0, 0), "north": (0.5, 0), "northeast": (1, 0),
    "west": (0, 0.5), "center": (0.5, 0.5), "east": (1, 0.5),
    "southwest": (0, 1), "south": (0.5, 1), "southeast": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize("gravity", GRAVITIES)
@pytest.mark.parametrize(("size", "axis"), [((160, 320), 1), ((320, 160), 0)])
def test_gravity_decides_what_is_kept(file: File, gravity: str, size: tuple[int, int], axis: int) -> None:
    found = _seen(file(p.encoded(p.bands(*size, 16))), f"80x80,fit=cover,gravity={gravity}")
    first = round(GRAVITIES[gravity][axis] * 8)  # of 16 bands 8 are kept
    ends = [p.colour_at(found, *((0.5, at) if axis else (at, 0.5))) for at in (1 / 16, 15 / 16)]
    assert found.size == (80, 80)
    assert p.looks_like(ends, [(first * 17, 0, 0), ((first + 7) * 17, 0, 0)], within=4)


def test_a_focal_point_is_kept(file: File) -> None:
    found = _seen(file(p.encoded(p.bands(160, 320, 16))), "80x80,fit=cover,gravity=0.5:0.7")
    assert p.looks_like([p.colour_at(found, 0.5, 0.5)], [(11 * 17, 0, 0)], within=10)


def test_top_keeps_the_top(file: File) -> None:
    path = file(p.encoded(p.bands(160, 320, 16)))
    found = _seen(path, "80x40,fit=top")
    assert found.size == (80, 40)
    assert p.colour_at(found, 0.5, 0.1)[0] < 5
    assert p.looks_like([p.colour_at(found, 0.5, 7 / 8)], [(3 * 17, 0, 0)], within=4)
    assert _seen(path, "80x400,fit=top").size == (80, 160)


def test_small_images_are_enlarged_only_when_asked(file: File) -> None:
    path = file(p.encoded(p.quadrants(30, 20)))
    assert _seen(path, "300x300").size == (30, 20)
    assert _seen(path, "300x300,fit=cover").size == (300, 300)
    assert _seen(path, "300x,fit=outside").size == (300, 200)
    assert _seen(path, "90x9,fit=fill").size == (90, 9)


@pytest.mark.parametrize("source", ["jpg", "png", "webp"])
def test_extreme_ratios_leave_a_pixel(file: File, source: str) -> None:
    for size in ((2000, 3), (3, 2000)):
        found = _seen(file(p.encoded(p.quadrants(*size), source)), "50x50")
        assert max(found.size) == 50
        assert min(found.size) == 1


@pytest.mark.parametrize("by", ["attention", "entropy"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("at", [20, 200, 380])
def test_a_smart_crop_finds_what_is_interesting(file: File, by: str, orientation: int, at: int) -> None:
    picture = Image.new("RGB", (480, 120), (90, 90, 90))
    face = np.asarray(p.noise(60, 60)).copy()
    face[..., 0] |= 0xC0  # busy, bright and reddish
    picture.paste(Image.fromarray(face), (at, 30))
    found = _seen(file(p.oriented(picture, orientation)), f"120x120,fit=cover,gravity={by}")
    assert found.size == (120, 120)
    busy = np.abs(np.asarray(found.convert("RGB")).astype(int) - 90).max(axis=2) > 40
    assert busy.sum() > 0.9 * 60 * 60 * 0.95


# --- transparency ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["png", "webp", "avif", "tiff", "gif"])
@pytest.mark.parametrize(("text", "behind"), [("60x", WHITE), ("60x,background=0000ff", (0, 0, 255))])
def test_transparency_goes_on_a_background_in_jpeg(file: File, source: str, text: str, behind: p.Colour) -> None:
    found = _seen(file(p.encoded(p.see_through(120, 80), source)), text, "jpg")
    assert found.mode == "RGB"
    assert p.looks_like([p.colour_at(found, 0.25, 0.5), p.colour_at(found, 0.75, 0.5)], [RED, behind], within=20)


@pytest.mark.parametrize("target", ["png", "webp", "avif", "gif"])
@pytest.mark.parametrize("source", ["png", "webp", "avif", "tiff"])
def test_transparency_is_kept_where_it_can_be(file: File, source: str, target: str) -> None:
    found = _seen(file(p.encoded(p.see_through(120, 80), source)), "60x", target).convert("RGBA")
    left, right = found.getpixel((15, 20)), found.getpixel((45, 20))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert p.distance(left, (*RED, 255)) <= 20
    assert right[3] <= 3


def test_a_given_background_goes_behind_transparency_in_any_format(file: File) -> None:
    found = _seen(file(p.encoded(p.see_through())), "full,background=navy", "png")
    assert found.mode == "RGB"
    assert p.colour_at(found, 0.75, 0.5) == (0, 0, 128)


def test_hidden_colours_do_not_bleed_over_the_edge(file: File) -> None:
    path = file(p.encoded(p.see_through(1000, 20, hidden=GREEN)))
    for size in ("333x", "100x", "50x"):
        pixels = np.asarray(_seen(path, size).convert("RGBA")).astype(int)
        visible = pixels[pixels[..., 3] > 8]
        assert len(visible)
        assert np.abs(visible[:, :3] - RED).max() <= 6  # red alone, however see-through
        flat = np.asarray(_seen(path, f"{size},background=ffffff", "png")).astype(int)
        assert (flat[..., 1] <= 255).all()
        assert (flat[..., 0] >= RED[0] - 6).all()  # between red and white: never greenish


# --- colours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", WRITABLE)
def test_cmyk_becomes_rgb(file: File, target: str) -> None:
    found = _seen(file(p.cmyk_jpg()), "full", target)
    assert found.mode != "CMYK"
    red, green, blue = p.colour_at(found, 0.5, 0.5)
    assert red > 200
    assert max(green, blue) < 80


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("text", ["full", "10x"])
def test_sixteen_bits_become_eight(file: File, channels: int, text: str) -> None:
    bright = np.array([0xC8C8, 0x6464, 0x3232, 0x8080], dtype=np.uint16)
    bright[[1, 3]] = (0x8080, 0x8080) if channels in (2, 4) else bright[[1, 3]]
    values = np.broadcast_to(bright[:channels], (20, 20, channels)).copy()
    found = _seen(file(p.png16(values)), text)
    assert found.mode in ("L", "LA", "RGB", "RGBA")
    pixel = found.convert("RGBA").getpixel((5, 5))
    assert isinstance(pixel, tuple)
    eight = [int(v) >> 8 for v in bright]
    colour = eight[:3] if channels > 2 else [eight[0]] * 3
    assert p.distance(pixel, (*colour, eight[channels - 1] if channels in (2, 4) else 255)) <= 2


@pytest.mark.parametrize("colour", [(200, 100, 50), (60, 160, 90), (128, 128, 128), (255, 255, 255)])
@pytest.mark.parametrize("target", ["png", "webp"])
def test_a_wide_gamut_profile_is_converted_to_srgb(file: File, colour: p.Colour, target: str) -> None:
    picture = Image.new("RGB", (40, 40), colour)
    path = file(p.encoded(picture, icc_profile=p.wide_gamut_profile()))
    body = _render(path, "lossless=true", target)
    assert p.distance(p.colour_at(p.opened(body), 0.5, 0.5), p.p3_to_srgb(colour)) <= 3
    assert "icc_profile" not in p.opened(body).info


def test_a_damaged_profile_does_not_spoil_the_pixels(file: File) -> None:
    path = file(p.encoded(Image.new("RGB", (40, 40), RED), icc_profile=b"not a profile" * 20))
    assert p.colour_at(_seen(path, "full"), 0.5, 0.5) == RED


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "I;16"])
@pytest.mark.parametrize("target", WRITABLE)
def test_every_kind_of_png_can_be_read(file: File, mode: str, target: str) -> None:
    picture = Image.new("L", (40, 40), 0)
    picture.paste(255, (0, 0, 20, 40))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    found = _seen(file(p.encoded(picture if mode == "I;16" else picture.convert(mode))), "20x", target)
    assert found.size == (20, 20)
    seen = [p.colour_at(found, 0.2, 0.5), p.colour_at(found, 0.8, 0.5)]
    assert p.looks_like(seen, [WHITE, BLACK])


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "CMYK", "P"])
def test_every_kind_of_tiff_can_be_read(file: File, mode: str) -> None:
    picture = Image.new("RGB", (40, 40), WHITE)
    picture.paste(BLACK, (20, 0, 40, 40))
    data = p.encoded(picture.convert(mode), "tiff")
    seen = [p.colour_at(_seen(file(data), "20x", "jpg"), x, 0.5) for x in (0.2, 0.8)]
    assert seen[0][0] > 230
    assert max(seen[1]) < 50


def test_a_grey_jpeg_stays_grey(file: File) -> None:
    found = _seen(file(p.jpg(Image.new("L", (40, 40), 100))), "20x", "jpg")
    assert found.mode == "L"
    assert p.distance(p.colour_at(found, 0.5, 0.5), (100, 100, 100)) <= 2


# --- animation -------------------------------------------------------------------------------------------------

COLOURS = (RED, GREEN, BLUE, YELLOW)
DELAYS_MS = (50, 100, 200, 400)


@pytest.mark.parametrize("target", ["gif", "webp"])
@pytest.mark.parametrize("source", ["gif", "webp"])
@pytest.mark.parametrize(
    ("text", "size"),
    [("full", (60, 40)), ("30x", (30, 20)), ("20x20,fit=cover", (20, 20)), ("40x40,fit=cover", (40, 40)),
     ("rotate=90", (40, 60)), ("crop=30:20:30:20", (30, 20)), ("120x,fit=outside", (120, 80)),
     ("20x20,fit=cover,gravity=attention", (20, 20))],
)  # fmt: skip
def test_an_animation_stays_one(file: File, source: str, target: str, text: str, size: tuple[int, int]) -> None:
    path = file(p.film(COLOURS, source, delays_ms=DELAYS_MS, loop=3))
    body = _render(path, text, target)
    frames = p.frames_of(body)
    assert [frame.shape[:2] for frame in frames] == [(size[1], size[0])] * 4
    for frame, colour in zip(frames, COLOURS, strict=True):  # each its own colour, to its last row and first
        for pixel in (frame[-1, -1], frame[-1, -2], frame[-2, -1]):
            assert p.distance(pixel[:3], colour) <= 20
        if "crop" not in text and "gravity" not in text:
            white = frame[1, -2] if "rotate" in text else frame[1, 1]
            assert p.distance(white[:3], WHITE) <= 20


@pytest.mark.parametrize("target", ["gif", "webp"])
@pytest.mark.parametrize("source", ["gif", "webp"])
@pytest.mark.parametrize("loop", [0, 3])
def test_an_animation_keeps_its_time(file: File, source: str, target: str, loop: int) -> None:
    path = file(p.film(COLOURS, source, delays_ms=DELAYS_MS, loop=loop))
    found = Image.open(Path(file(_render(path, "30x", target))))
    with found:
        # GIF counts the repetitions after the first time, WebP the times.
        more = {"gif": 0, "webp": 1}
        assert found.info.get("loop") == (loop + more[target] - more[source] if loop else 0)
        delays = []
        for index in range(4):
            found.seek(index)
            found.load()
            delays.append(found.info["duration"])
    assert delays == list(DELAYS_MS)


@pytest.mark.parametrize("target", ["jpg", "png", "avif"])
@pytest.mark.parametrize("source", ["gif", "webp"])
def test_a_still_format_shows_the_first_frame(file: File, source: str, target: str) -> None:
    found = _seen(file(p.film(COLOURS, source)), "30x", target)
    assert found.size == (30, 20)
    assert getattr(found, "n_frames", 1) == 1
    assert p.looks_like([p.colour_at(found, 0.9, 0.9), p.colour_at(found, 0.2, 0.2)], [RED, WHITE], within=20)


# --- true to a full decode -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """A photograph as a camera delivers it: large, with grain."""
    return p.photograph(1800, 1200, grain=6)


SHRUNK = ["100x", "150x", "300x", "500x", "590x", "200x200,fit=cover", "100x,crop=300:200:900:700"]


@pytest.mark.parametrize("source", ["jpg", "webp"])
@pytest.mark.parametrize("text", SHRUNK)
def test_shrinking_on_load_is_true_to_a_full_decode(
    file: File, photograph: Image.Image, source: str, text: str
) -> None:
    path = file(p.encoded(photograph, source, quality=90))
    plan = make_plan(Transform.parse(text).as_format("png"), inspect(path, LIMITS), LIMITS)
    assert plan.shrink > 1
    fast, slow = (_array(render(path, each)) for each in (plan, replace(plan, shrink=1)))
    assert fast.shape == slow.shape
    assert p.similarity(fast, slow) >= 0.99


def test_resizing_is_true_to_pillows(file: File, photograph: Image.Image) -> None:
    path = file(p.encoded(photograph.crop((0, 0, 600, 400))))
    ours = _array(_render(path, "150x", "png"))
    theirs = np.asarray(photograph.crop((0, 0, 600, 400)).resize((150, 100), Image.Resampling.LANCZOS))
    assert p.similarity(ours, theirs) >= 0.99


def _array(body: bytes) -> npt.NDArray[Any]:
    return np.asarray(p.opened(body).convert("RGB"))


@pytest.mark.parametrize("name", ["jpg", "webp", "avif"])
def test_every_default_quality_is_a_good_one(file: File, name: str) -> None:
    path = file(p.encoded(p.photograph(600, 400)))
    assert p.similarity(_array(_render(path, "300x", name)), _array(_render(path, "300x", "png"))) >= 0.9
