"""ThumbHash: a preview of an image in some 25 bytes. Pure.

Source: https://evanw.github.io/thumbhash/ and the reference implementation that belongs to it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, floor, pi

MAX_SIDE = 100
"""Pixels of the images that the format is made of; a third of that is enough."""

_SIDE = 32  # pixels of a decoded preview's longer side
_Waves = list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A decoded preview: `width` x `height` pixels, four bytes each (RGBA, not premultiplied)."""

    width: int
    height: int
    rgba: bytes


def encode(width: int, height: int, rgba: bytes) -> str:
    """Return the hash, in base64, of an image of at most 100 x 100 pixels, four bytes each (RGBA, not premultiplied).

    Takes some 6 ms for 32 x 32 pixels, and proportionally more for others.
    """
    assert min(width, height) > 0
    assert max(width, height) <= MAX_SIDE
    assert len(rgba) == 4 * width * height
    alpha = [value / 255 for value in rgba[3::4]]
    transparent = _sum(alpha) < width * height
    channels = _channels(rgba, alpha)
    most = 5 if transparent else 7
    across, down = (max(1, _round(most * side / max(width, height))) for side in (width, height))
    light = _Channel.of(channels[0], width, height, max(3, across), max(3, down))
    yellow, red = (_Channel.of(channel, width, height, 3, 3) for channel in channels[1:])
    landscape = width > height
    head = (
        _round(63 * light.mean) | _round(31.5 + 31.5 * yellow.mean) << 6 | _round(31.5 + 31.5 * red.mean) << 12
        | _round(31 * light.scale) << 18 | transparent << 23
    )  # fmt: skip
    more = (
        (down if landscape else across) | _round(63 * yellow.scale) << 3 | _round(63 * red.scale) << 9
        | landscape << 15
    )  # fmt: skip
    made = bytearray(head.to_bytes(3, "little") + more.to_bytes(2, "little"))
    waves = [*light.waves, *yellow.waves, *red.waves]
    if transparent:
        opacity = _Channel.of(alpha, width, height, 5, 5)
        made.append(_round(15 * opacity.mean) | _round(15 * opacity.scale) << 4)
        waves += opacity.waves
    nibbles = [_round(15 * wave) for wave in waves] + [0]
    made += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=False))
    return base64.b64encode(bytes(made)).decode("ascii")


def _channels(rgba: bytes, alpha: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
    """Return lightness, yellow against blue, and red against green; transparent pixels take the mean colour."""
    bands = rgba[0::4], rgba[1::4], rgba[2::4]
    opaque = _sum(alpha)
    means = [
        _sum(a / 255 * value for a, value in zip(alpha, band, strict=True)) / opaque if opaque else 0.0
        for band in bands
    ]
    light, yellow, reddish = [], [], []
    for a, *colour in zip(alpha, *bands, strict=True):
        r, g, b = (mean * (1 - a) + a / 255 * value for mean, value in zip(means, colour, strict=True))
        light.append((r + g + b) / 3)
        yellow.append((r + g) / 2 - b)
        reddish.append(r - g)
    return light, yellow, reddish


def _sum(values: Iterable[float]) -> float:
    """Add one after the other, as the reference does; `sum` adds more exactly in some versions of Python."""
    total = 0.0
    for value in values:
        total += value
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """A channel as its mean and its lowest waves, 0..1 within `scale`."""

    mean: float
    scale: float
    waves: Sequence[float]

    @classmethod
    def of(cls, values: Sequence[float], width: int, height: int, across: int, down: int) -> _Channel:
        found = []
        for cx, cy in _grid(across, down):
            columns, wave = _cosines(width, cx), 0.0
            # In this order, on whose rounding it depends which way a wave that is nearly nothing is rounded.
            for top, fy in zip(range(0, width * height, width), _cosines(height, cy), strict=True):
                for value, fx in zip(values[top : top + width], columns, strict=True):
                    wave += value * fx * fy
            found.append(wave / (width * height))
        mean, *waves = found
        scale = max(map(abs, waves))
        return cls(mean=mean, scale=scale, waves=[0.5 + 0.5 / scale * wave for wave in waves] if scale else waves)


@lru_cache(maxsize=1024)
def _cosines(side: int, wave: int) -> list[float]:
    return [cos(pi / side * wave * (at + 0.5)) for at in range(side)]


@lru_cache(maxsize=64)
def _grid(across: int, down: int) -> _Waves:
    """Return which waves are kept, (0, 0) first: a triangle of low ones."""
    return [(cx, cy) for cy in range(down) for cx in range(across) if cx * down < across * (down - cy)]


def decode(thumbhash: str) -> Preview:
    """Return the preview that a hash stands for, 32 pixels on its longer side.

    Raises:
        ValueError: it is no hash.
    """
    drawing = _Drawing.read(thumbhash)
    width, height = drawing.size
    bands = [list(band.pixels(width, height)) for band in drawing.bands]
    rgba = bytearray()
    for light, yellow, red, opacity in zip(*bands, strict=True):
        rgba += bytes(map(_byte, (*_rgb(light, yellow, red), opacity)))
    return Preview(width=width, height=height, rgba=bytes(rgba))


def average(thumbhash: str) -> str:
    """Return the mean colour of an image as six hex digits.

    Raises:
        ValueError: it is no hash.
    """
    light, yellow, red, _ = (band.mean for band in _Drawing.read(thumbhash).bands)
    return bytes(map(_byte, _rgb(light, yellow, red))).hex()


def has_alpha(thumbhash: str) -> bool:
    """Tell whether the image has transparent pixels.

    Raises:
        ValueError: it is no hash.
    """
    return _Drawing.read(thumbhash).has_alpha


def png(preview: Preview) -> bytes:
    """Return a preview as a PNG file. Source: PNG (Third Edition), 5.2, 5.3 and 9.2 (filter type 0)."""
    stride = 4 * preview.width
    rows = (preview.rgba[at : at + stride] for at in range(0, len(preview.rgba), stride))
    header = struct.pack(">IIBBBBB", preview.width, preview.height, 8, 6, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """A channel to be drawn: its mean, and the waves that are added to it."""

    mean: float
    across: int = 0
    down: int = 0
    waves: Sequence[float] = ()

    def pixels(self, width: int, height: int) -> Iterator[float]:
        columns = [_cosines(width, cx) for cx in range(self.across)]
        waves = list(zip(_grid(self.across, self.down)[1:], self.waves, strict=True))
        for y in range(height):
            along = [0.0] * self.across
            for (cx, cy), wave in waves:
                along[cx] += 2 * wave * _cosines(height, cy)[y]
            for x in range(width):
                yield self.mean + sum(part * column[x] for part, column in zip(along, columns, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawing:
    """A hash, taken apart: lightness, yellow, red, opacity; `sides` are as the image's."""

    sides: tuple[int, int]
    bands: tuple[_Band, _Band, _Band, _Band]
    has_alpha: bool

    @classmethod
    def read(cls, thumbhash: str) -> _Drawing:
        raw = base64.b64decode(thumbhash, validate=True)  # its error is a ValueError
        head, more = int.from_bytes(raw[:3], "little"), int.from_bytes(raw[3:5], "little")
        transparent, least = bool(head >> 23 & 1), more & 7
        begin, most = (6, 5) if transparent else (5, 7)
        if len(raw) < begin or not least:
            raise ValueError(f"{thumbhash[:64]!r} is no ThumbHash")
        nibbles = iter([part for byte in raw[begin:] for part in (byte & 15, byte >> 4)])
        across, down = sides = (most, least) if more >> 15 else (least, most)
        opacity = _Band(mean=1.0)
        try:
            light = _band(nibbles, (head & 63) / 63, (head >> 18 & 31) / 31, max(3, across), max(3, down))
            # A little more colour than was measured makes up for what is lost by rounding.
            yellow = _band(nibbles, (head >> 6 & 63) / 31.5 - 1, (more >> 3 & 63) / 63 * 1.25, 3, 3)
            red = _band(nibbles, (head >> 12 & 63) / 31.5 - 1, (more >> 9 & 63) / 63 * 1.25, 3, 3)
            if transparent:
                opacity = _band(nibbles, (raw[5] & 15) / 15, (raw[5] >> 4) / 15, 5, 5)
        except StopIteration:
            raise ValueError(f"{thumbhash[:64]!r} is a ThumbHash cut short") from None
        return cls(sides=sides, bands=(light, yellow, red, opacity), has_alpha=transparent)

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of the preview."""
        ratio = self.sides[0] / self.sides[1]
        return (_SIDE, _round(_SIDE / ratio)) if ratio > 1 else (_round(_SIDE * ratio), _SIDE)


def _band(nibbles: Iterator[int], mean: float, scale: float, across: int, down: int) -> _Band:
    waves = [(next(nibbles) / 7.5 - 1) * scale for _ in _grid(across, down)[1:]]
    return _Band(mean=mean, across=across, down=down, waves=waves)


def _rgb(light: float, yellow: float, red: float) -> tuple[float, float, float]:
    b = light - 2 / 3 * yellow
    r = (3 * light - b + red) / 2
    return r, r - red, b


def _byte(value: float) -> int:
    return int(255 * max(0.0, min(1.0, value)))


def _round(value: float) -> int:
    """Round half up, as the reference does."""
    return floor(value + 0.5)
