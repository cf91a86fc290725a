"""A preview of an image that is being verified, made of the same pass over its pixels."""

from __future__ import annotations

import pyvips

from lazypix.engine.steps import brought_to_srgb
from lazypix.thumbhash import encode

_SIDE = 24
"""Pixels of the longer side at most: three times as many as the hash has waves, and a few milliseconds of Python."""


def shrunk(image: pyvips.Image) -> pyvips.Image:
    """Read every pixel, and return the image with at most `_SIDE` pixels a side, in memory, as it was stored.

    Raises:
        pyvips.Error: it cannot be decoded to the end.
    """
    factor = -(-max(image.width, image.height) // _SIDE)
    if not image.hasalpha():
        return _shrink(image, factor)
    # The colours of transparent pixels must not bleed in.
    return _shrink(image.premultiply(), factor).unpremultiply().cast(image.format).copy_memory()


def _shrink(image: pyvips.Image, factor: int) -> pyvips.Image:
    return image.shrink(factor, factor, ceil=True).copy_memory()  # up: what is left at the edge is read, too


def thumbhash(small: pyvips.Image) -> str | None:
    """Return the hash of a shrunk image, upright and in sRGB; None for colours that nobody can show."""
    try:
        image = brought_to_srgb(small.autorot())
        if image.bands < 3:
            image = image.colourspace("srgb")
        if not image.hasalpha():
            image = image.bandjoin(255)
        if image.bands != 4:
            return None
        return encode(image.width, image.height, bytes(image.cast("uchar").write_to_memory()))
    except pyvips.Error:
        return None
