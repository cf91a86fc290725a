"""ThumbHash, against what the reference implementation makes of the same pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from lazypix.thumbhash import average, decode, encode, has_alpha, png


def _pixels(width: int, height: int, *, alpha: bool = False) -> bytes:
    """Draw a slope of all channels."""
    y, x = np.mgrid[0:height, 0:width]
    opacity = np.where(x > width // 2, 0, 255) if alpha else np.full_like(x, 255)
    return np.dstack([x * 255 // width, y * 255 // height, np.full_like(x, 60), opacity]).astype(np.uint8).tobytes()


@given(st.binary(max_size=40))
def test_any_bytes_are_a_preview_or_refused(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    try:
        preview = decode(text)
    except ValueError:
        return
    assert len(preview.rgba) == 4 * preview.width * preview.height
    assert max(preview.width, preview.height) == 32


@pytest.mark.parametrize(("width", "height"), [(32, 32), (32, 20), (9, 32), (1, 1), (100, 1), (100, 100)])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_preview_looks_like_the_image(width: int, height: int, alpha: bool) -> None:
    rgba = _pixels(width, height, alpha=alpha)
    text = encode(width, height, rgba)
    preview = decode(text)
    assert has_alpha(text) == (alpha and width > 1)
    made = np.frombuffer(preview.rgba, np.uint8).reshape(preview.height, preview.width, 4)
    given_image = Pillow.frombytes("RGBA", (width, height), rgba).resize((preview.width, preview.height))
    shown = np.asarray(given_image)[..., 3] > 128
    if min(width, height) > 4:
        assert np.abs(made.astype(int) - np.asarray(given_image).astype(int))[shown][:, :3].mean() < 20
    assert Pillow.open(io.BytesIO(png(preview))).convert("RGBA").tobytes() == preview.rgba


def test_the_mean_colour_is_the_image_s() -> None:
    mean = bytes.fromhex(average(encode(8, 8, bytes((200, 100, 50, 255)) * 64)))
    assert np.abs(np.array(list(mean)) - (200, 100, 50)).max() <= 4


@pytest.mark.parametrize("text", ["", "!", "AAAA", "1QcSHQRnh493V4dIh4eXh1h4", "AAAAAAA="])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ThumbHash|base64|padding"):
        decode(text)
