"""The preview that verification makes: upright, in sRGB, of the first frame, whatever the image is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from tests.engine import pictures as p

from lazypix.engine.render import inspect
from lazypix.plan import Limits
from lazypix.thumbhash import average, decode, encode, has_alpha, png

# What the reference implementation (thumbhash 0.1.1 for JavaScript) makes of `drawn`. A wave that is nearly nothing
# may be rounded the other way, by the cosine's last bit: of one of its 16 steps.
REFERENCE = {
    "slope": "2RkKNJpwd4dwiIiHiIdwgAf3iA==",
    "tall": "2lcNSiRwmXiIiIeIj5lYCIk=",
    "clear": "ZGqGNQo5soiAmHVod5ZP+ZKZYHeMdpiHiA==",
    "red": "13oDBwBpiT94h3iGd4eHiHd+pPWIWo8I",
    "one": "wPcBBwAI9wiIh4hwj3CI+AiIcH/494cP",
    "gone": "AAiCBQAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
}


def drawn(name: str) -> tuple[int, int, bytes]:
    match name:
        case "slope":
            return 32, 20, bytes(v for y in range(20) for x in range(32) for v in (x * 8, y * 12, 60, 255))
        case "tall":
            return (
                9,
                32,
                bytes(v for y in range(32) for x in range(9) for v in (x * y % 256, 255 - y * 7, x * 28, 255)),
            )
        case "clear":
            return (
                20,
                20,
                bytes(
                    v for y in range(20) for x in range(20) for v in (200, x * 12, y * 12, 255 if x > y else x * 10)
                ),
            )
        case "red":
            return 8, 8, bytes((220, 30, 30, 255)) * 64
        case "one":
            return 1, 1, bytes((1, 2, 3, 255))
        case _:
            return 4, 4, bytes(64)


@pytest.mark.parametrize("name", REFERENCE)
def test_hashes_are_those_of_the_reference(name: str) -> None:
    made, expected = (base64.b64decode(text) for text in (encode(*drawn(name)), REFERENCE[name]))
    assert (len(made), made[:5]) == (len(expected), expected[:5])
    steps = [(byte & 15, byte >> 4) for byte in made[5:]], [(byte & 15, byte >> 4) for byte in expected[5:]]
    assert np.abs(np.array(steps[0]) - np.array(steps[1])).max() <= 1


def _preview(tmp_path: Path, data: bytes) -> tuple[str, Pillow.Image]:
    (tmp_path / "image").write_bytes(data)
    text = inspect(str(tmp_path / "image"), Limits()).thumbhash
    assert text is not None
    return text, Pillow.open(io.BytesIO(png(decode(text)))).convert("RGBA")


@pytest.mark.parametrize("orientation", p.ORIENTATIONS)
def test_it_is_upright(tmp_path: Path, orientation: int) -> None:
    _, shown = _preview(tmp_path, p.oriented(p.quadrants(120, 80), orientation))
    assert shown.width > shown.height
    assert _looks(shown, p.corners_of(p.quadrants(shown.width, shown.height)))


def _looks(shown: Pillow.Image, corners: Sequence[p.Colour]) -> bool:
    found = p.corners_of(shown.convert("RGB"))
    return all(p.distance(one, other) < 90 for one, other in zip(found, corners, strict=True))


@pytest.mark.parametrize("name", ["jpg", "png", "webp", "avif", "tiff", "gif"])
def test_it_is_made_of_every_format(tmp_path: Path, name: str) -> None:
    text, _ = _preview(tmp_path, p.encoded(Pillow.new("RGB", (70, 50), (200, 100, 50)), name))
    assert p.distance(tuple(bytes.fromhex(average(text))), (200, 100, 50)) < 12


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (p.cmyk_jpg(), (240, 30, 30)),
        (p.png16(np.full((30, 30, 3), (65535, 0, 32768), np.uint16)), (255, 0, 128)),
        (p.encoded(Pillow.new("L", (30, 30), 120)), (120, 120, 120)),
        (p.encoded(Pillow.new("RGB", (1, 1), (200, 100, 50))), (200, 100, 50)),
        (p.encoded(Pillow.new("RGB", (2000, 1), (200, 100, 50))), (200, 100, 50)),
        (p.film((p.RED, p.BLUE)), (229, 86, 86)),
    ],
    ids=["cmyk", "16 bit", "grey", "one pixel", "a line", "animated"],
)
def test_it_is_in_colours_that_screens_show(tmp_path: Path, data: bytes, colour: p.Colour) -> None:
    text, _ = _preview(tmp_path, data)
    assert p.distance(tuple(bytes.fromhex(average(text))), colour) < 45


def test_transparency_is_kept_and_hides_what_is_behind_it(tmp_path: Path) -> None:
    text, _ = _preview(tmp_path, p.encoded(p.see_through(hidden=p.GREEN)))
    assert has_alpha(text)
    assert p.distance(tuple(bytes.fromhex(average(text))), p.RED) < 30
