"""What may not come in: broken, foreign, empty and oversized files."""

from __future__ import annotations

import resource
import struct
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import pyvips
from PIL import Image
from tests.engine import pictures as p

from lazypix.engine.render import inspect
from lazypix.errors import BrokenImage, TooLarge, UnsupportedImage
from lazypix.formats import READABLE
from lazypix.plan import Limits, Probe

File = Callable[[bytes], str]
LIMITS = Limits()


@pytest.mark.parametrize("name", READABLE)
def test_a_whole_image_is_taken(file: File, name: str) -> None:
    found = inspect(file(p.encoded(p.noise(61, 43), name)), LIMITS)
    assert (found.format, found.width, found.height, found.frames, found.orientation) == (name, 61, 43, 1, 1)


@pytest.mark.parametrize("name", ["png", "webp", "avif", "tiff", "gif"])
def test_transparency_is_noticed(file: File, name: str) -> None:
    assert inspect(file(p.encoded(p.see_through(), name)), LIMITS).alpha
    if name != "gif":
        assert not inspect(file(p.encoded(p.quadrants(), name)), LIMITS).alpha


def test_what_a_header_says(file: File) -> None:
    found = inspect(file(p.oriented(p.quadrants(120, 80), 6)), LIMITS)
    assert found.thumbhash
    assert replace(found, thumbhash=None) == Probe(format="jpg", width=80, height=120, orientation=6)
    assert found.upright_size == (120, 80)
    found = inspect(file(p.film([p.RED, p.GREEN, p.BLUE], "webp")), LIMITS)
    assert (found.format, found.width, found.height, found.frames) == ("webp", 60, 40, 3)


@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("name", READABLE)
def test_a_truncated_image_is_refused(file: File, name: str, part: float) -> None:
    data = p.encoded(p.noise(61, 43), name)
    cut = data[: max(16, int(len(data) * part))]
    with pytest.raises(BrokenImage, match=f"The {name} image is truncated or damaged") as caught:
        inspect(file(cut), LIMITS)
    assert "/" not in str(caught.value)  # no path of the server


@pytest.mark.parametrize("name", ["gif", "webp"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_truncated_animation_is_refused(file: File, name: str, part: float) -> None:
    frames = [p.noise(60, 40), p.quadrants(60, 40)] * 2
    data = p.encoded(frames[0], name, save_all=True, append_images=frames[1:])
    with pytest.raises(BrokenImage, match=f"The {name} image"):
        inspect(file(data[: int(len(data) * part)]), LIMITS)


def test_a_png_with_damaged_pixels_is_refused(file: File) -> None:
    data = bytearray(p.encoded(p.noise(61, 43)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BrokenImage, match="The png image"):
        inspect(file(bytes(data)), LIMITS)


@pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 100, b"<html></html>", b"RIFF\0\0\0\0WAVEfmt ", b"\xff\xd8"])
def test_what_is_no_image_is_refused(file: File, data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="accepted: jpg, png, gif, webp, avif, tiff"):
        inspect(file(data), LIMITS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
        ("svg", b"<?xml version='1.0'?>\n<svg/>"),
        ("pdf", b"%PDF-1.7\n"),
        ("bmp", b"BM" + b"\0" * 60),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 60),
        ("jxl", b"\xff\x0a" + b"\0" * 60),
        ("ico", b"\0\0\1\0\1\0" + b"\0" * 60),
        ("psd", b"8BPS\0\1" + b"\0" * 60),
    ],
)
def test_a_format_that_cannot_be_read_is_named(file: File, name: str, data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=f"A {name} file cannot be read here; accepted: jpg"):
        inspect(file(data), LIMITS)


@pytest.mark.parametrize("name", READABLE)
def test_a_signature_alone_is_no_image(file: File, name: str) -> None:
    with pytest.raises(BrokenImage):
        inspect(file(p.encoded(p.quadrants(), name)[:16] + b"\0" * 200), LIMITS)


def test_a_decompression_bomb_is_refused_by_its_header(file: File) -> None:
    path = file(p.bomb(60_000, 60_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(TooLarge, match=r"60000x60000, 3600\.0 megapixels; at most 50"):
        inspect(path, LIMITS)
    assert time.process_time() - start < 1  # decoding ten gigabytes would take many
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("name", ["jpg", "png", "webp", "tiff", "avif", "gif"])
def test_an_image_over_the_limit_of_pixels_is_refused(file: File, name: str) -> None:
    path = file(p.encoded(p.quadrants(100, 80), name))
    assert inspect(path, Limits(max_pixels=8000)).width == 100
    with pytest.raises(TooLarge, match=r"100x80, 0\.0 megapixels"):
        inspect(path, Limits(max_pixels=7999))


@pytest.mark.parametrize("name", ["gif", "webp"])
def test_frames_are_counted(file: File, name: str) -> None:
    frames = [Image.new("RGB", (4, 4), (index, 255 - index, index)) for index in range(101)]
    more = {"optimize": False} if name == "gif" else {"lossless": True}
    path = file(p.encoded(frames[0], name, save_all=True, append_images=frames[1:], **more))
    with pytest.raises(TooLarge, match="101 frames; at most 100"):
        inspect(path, LIMITS)
    assert inspect(path, Limits(max_frames=101)).frames == 101
    with pytest.raises(TooLarge, match="in 101 frames"):
        inspect(path, Limits(max_frames=101, max_pixels=16 * 100))


def test_pixels_are_summed_over_frames(file: File) -> None:
    path = file(p.film([p.RED, p.GREEN, p.BLUE], "gif"))
    assert inspect(path, Limits(max_pixels=60 * 40 * 3)).frames == 3
    with pytest.raises(TooLarge, match="in 3 frames"):
        inspect(path, Limits(max_pixels=60 * 40 * 3 - 1))


def test_only_the_first_page_of_a_tiff_counts(file: File) -> None:
    pages = [p.quadrants(20, 20)] * 5
    found = inspect(file(p.encoded(pages[0], "tiff", save_all=True, append_images=pages[1:])), LIMITS)
    assert (found.frames, found.width, found.height) == (1, 20, 20)


def test_a_jpeg_with_something_behind_it_is_taken(file: File) -> None:
    """Phones append films to photographs."""
    assert inspect(file(p.jpg(p.quadrants()) + b"MotionPhoto" * 100), LIMITS).width == 120


def test_an_orientation_that_does_not_exist_is_upright(file: File) -> None:
    data = p.oriented(p.quadrants(120, 80), 6)
    for order in "><":  # whichever Pillow wrote
        six, nine = (struct.pack(f"{order}HHIHH", 0x0112, 3, 1, value, 0) for value in (6, 9))
        data = data.replace(six, nine)
    found = inspect(file(data), LIMITS)
    assert found.orientation not in range(2, 9)
    assert found.upright_size == (80, 120)


def test_an_image_of_many_channels_is_refused(file: File) -> None:
    image = pyvips.Image.black(20, 10, bands=7)
    with pytest.raises(UnsupportedImage, match="7 channels"):
        inspect(file(image.write_to_buffer(".tiff")), LIMITS)


def test_a_gif_with_stray_zeros_between_its_blocks_is_taken(file: File) -> None:
    data = p.encoded(p.quadrants(), "gif")
    assert inspect(file(data[:-1] + b"\0\0" + data[-1:]), LIMITS).format == "gif"


@pytest.mark.parametrize("missing", range(1, 13))
def test_a_png_without_its_end_is_broken(file: File, missing: int) -> None:
    whole = p.encoded(p.quadrants(40, 30))
    assert inspect(file(whole), LIMITS).format == "png"
    assert inspect(file(whole + b"behind the end"), LIMITS).format == "png"
    with pytest.raises(BrokenImage):
        inspect(file(whole[:-missing]), LIMITS)
