"""The table of formats: recognised by content, never by name, and consistent in itself."""

from __future__ import annotations

import io
import mimetypes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lazypix.errors import UnsupportedImage
from lazypix.formats import FORMATS, READABLE, SNIFF_BYTES, WRITABLE, by_extension, by_name, readable, sniff


@pytest.mark.parametrize(
    ("pillow", "name"),
    [
        ("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp"), ("AVIF", "avif"), ("TIFF", "tiff"),
        ("BMP", "bmp"), ("ICO", "ico"), ("JPEG2000", "jp2"), ("PDF", "pdf"),
    ],
)  # fmt: skip
def test_what_a_real_encoder_writes_is_recognised(pillow: str, name: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, pillow)
    found = sniff(buffer.getvalue()[:SNIFF_BYTES])
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"MM\0+", "tiff"),  # BigTIFF
        (b"GIF87a", "gif"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf", "avif"),  # told by a compatible brand
        (b"\0\0\0\x1cftypavis\0\0\0\0avif", "avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", None),  # a film
        (b"\0\0\0\x10ftypisom\0\0\0\0avif", None),  # beyond the box that lists the brands
        (b"\xff\x0a", "jxl"),
        (b"8BPS\0\1", "psd"),
        (b"<svg xmlns=", "svg"),
        (b"\xef\xbb\xbf  \n<?xml version='1.0'?><svg>", "svg"),
        (b"<SVG>", "svg"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"\x89PNG\r\n\x1a", None),
        (b"\xff\xd8", None),
        (b"", None),
        (b"<html><svg>", None),
    ],
)
def test_magic_bytes(head: bytes, name: str | None) -> None:
    found = sniff(head)
    assert (found and found.name) == name


@given(st.binary(max_size=SNIFF_BYTES))
def test_any_bytes_are_sniffed_without_an_error(head: bytes) -> None:
    assert sniff(head) in (None, *FORMATS)


def test_what_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedImage, match=r"A svg file cannot be read here; accepted: jpg, png, gif"):
        readable(b"<svg")
    with pytest.raises(UnsupportedImage, match=r"Not an image that can be read; accepted: jpg, png, gif"):
        readable(b"hello")


def test_names_extensions_and_types_are_unambiguous() -> None:
    extensions = [extension for f in FORMATS for extension in f.extensions]
    assert len(extensions) == len(set(extensions))
    assert len({f.name for f in FORMATS}) == len({f.mime for f in FORMATS}) == len(FORMATS)
    assert all(by_name(f.name) is f for f in FORMATS)


def test_extensions_are_found_in_any_case_and_without_the_dot() -> None:
    assert by_extension("JPEG") is by_name("jpg")
    assert by_extension("tif") is by_name("tiff")
    assert by_extension(".jpg") is None
    assert by_extension("exe") is None


@pytest.mark.parametrize("name", ["jpg", "png", "gif", "webp", "avif", "tiff", "bmp", "svg", "pdf"])
def test_types_are_those_that_are_registered(name: str) -> None:
    known = mimetypes.types_map.get(f".{by_name(name).extension}") or by_name(name).mime  # avif is new to Python
    assert by_name(name).mime == {"image/x-ms-bmp": "image/bmp"}.get(known, known)


def test_what_is_promised_can_be_read_and_written() -> None:
    assert READABLE == ("jpg", "png", "gif", "webp", "avif", "tiff")
    assert WRITABLE == ("jpg", "png", "gif", "webp", "avif")
    assert [f.name for f in FORMATS if f.animates] == ["gif", "webp"]
    assert [name for name in WRITABLE if not by_name(name).alpha] == ["jpg"]
