"""The values that a transform's options take, read from text and written back.

A reader returns None for a text that is no such value; `transform` knows the option's name and what it accepts,
and tells the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lazypix.errors import BadTransform
from lazypix.formats import by_extension

COMPASS = ("center", "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
GRAVITIES = (*COMPASS, "portrait", "attention", "entropy")
MAX_SIDE = 999_999
"""The largest number of pixels that a text can say; servers allow far less (`plan.Limits`)."""

_GRAVITY_ALIASES = {
    "centre": "center", "top": "north", "top-right": "northeast", "right": "east", "bottom-right": "southeast",
    "bottom": "south", "bottom-left": "southwest", "left": "west", "top-left": "northwest",
}  # fmt: skip
# The 16 basic colour keywords of CSS. Source: CSS Color Module Level 4, section 6.1.
_COLOURS = {
    "black": "000000", "silver": "c0c0c0", "gray": "808080", "white": "ffffff", "maroon": "800000",
    "red": "ff0000", "purple": "800080", "fuchsia": "ff00ff", "green": "008000", "lime": "00ff00",
    "olive": "808000", "yellow": "ffff00", "navy": "000080", "blue": "0000ff", "teal": "008080", "aqua": "00ffff",
}  # fmt: skip
_WHOLE = re.compile(r"[0-9]{1,6}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Focal:
    """The point that a crop keeps as near to its middle as it can; `x` and `y` are fractions 0..1."""

    x: float
    y: float

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            normalise(self, name, _fraction(getattr(self, name), "gravity"))


Gravity = str | Focal


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A rectangle of the upright original, cut out before anything else.

    Either whole pixels (`unit="px"`) or fractions 0..1 of the image's sides (`unit="fraction"`, kept to four
    decimals). A region in pixels that reaches over the edge is cut at the edge.
    """

    x: float
    y: float
    width: float
    height: float
    unit: Literal["px", "fraction"] = "px"

    def __post_init__(self) -> None:
        for name in ("x", "y", "width", "height"):
            value = getattr(self, name)
            normalise(self, name, _fraction(value, "crop") if self.unit == "fraction" else _whole_px(value))
        if self.width <= 0 or self.height <= 0:
            raise BadTransform(f"crop={write_region(self)} is empty; width and height must be more than 0")
        if self.unit == "fraction" and (self.x >= 1 or self.y >= 1):
            raise BadTransform(f"crop={write_region(self)} begins outside of the image; x and y must be below 1")


def normalise(value: object, name: str, to: object) -> None:
    """Set a field of a frozen value while it is being built."""
    object.__setattr__(value, name, to)


def read_word(*words: str) -> Callable[[str], str | None]:
    """Return a reader of one of these words."""
    return lambda text: text if text in words else None


def read_whole(text: str) -> int | None:
    """Read a whole number of up to six digits."""
    return int(text) if _WHOLE.fullmatch(text) else None


def read_one_of(*numbers: int) -> Callable[[str], int | None]:
    """Return a reader of one of these numbers."""
    return lambda text: number if (number := read_whole(text)) in numbers else None


def read_side(text: str) -> int | None:
    """Read a number of pixels, from 1."""
    return read_whole(text) or None


def read_decimal(text: str) -> float | None:
    """Read a number with or without decimals."""
    return float(text) if _DECIMAL.fullmatch(text) else None


def read_flag(text: str) -> bool | None:
    """Read `true` or `false`, also written `1` or `0`."""
    return {"true": True, "1": True, "false": False, "0": False}.get(text)


def read_gravity(text: str) -> Gravity | None:
    """Read a word for a place, or `x:y`."""
    word = _GRAVITY_ALIASES.get(text, text)
    if word in GRAVITIES:
        return word
    numbers = [read_decimal(part) for part in text.split(":")]
    match numbers:
        case [float(x), float(y)]:
            return Focal(x=x, y=y)
    return None


def read_region(text: str) -> Region | None:
    """Read `x:y:width:height`; a decimal point anywhere means fractions."""
    numbers = [read_decimal(part) for part in text.split(":")]
    match numbers:
        case [float(x), float(y), float(width), float(height)]:
            return Region(x=x, y=y, width=width, height=height, unit="fraction" if "." in text else "px")
    return None


def read_colour(text: str) -> str | None:
    """Read `rrggbb`, `rgb` or a colour's name; return six hex digits."""
    colour = _COLOURS.get(text.lower(), text.lower().removeprefix("#"))
    if re.fullmatch(r"[0-9a-f]{3}", colour, re.ASCII):
        colour = "".join(digit * 2 for digit in colour)
    return colour if re.fullmatch(r"[0-9a-f]{6}", colour, re.ASCII) else None


def read_format(text: str) -> str | None:
    """Read the name or an extension of a format that can be written; return its name."""
    found = by_extension(text)
    return found.name if found is not None and found.saves else None


def write_gravity(gravity: Gravity) -> str:
    """Write what `read_gravity` reads."""
    return gravity if isinstance(gravity, str) else f"{write_number(gravity.x)}:{write_number(gravity.y)}"


def write_region(region: Region) -> str:
    """Write what `read_region` reads."""
    write = _write_fraction if region.unit == "fraction" else write_number
    return ":".join(write(value) for value in (region.x, region.y, region.width, region.height))


def write_number(value: float) -> str:
    """Write 2.0 as `2` and 0.25 as `0.25`, to four decimals."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _write_fraction(value: float) -> str:
    """Write a decimal point always, so that a fraction cannot be taken for pixels."""
    text = write_number(value)
    return text if "." in text else f"{text}.0"


def _fraction(value: float, option: str) -> float:
    if not 0 <= value <= 1:
        raise BadTransform(f"{option}: {write_number(value)} is not a fraction from 0 to 1")
    return round(float(value), 4)


def _whole_px(value: float) -> float:
    if not 0 <= value <= MAX_SIDE or value != int(value):
        raise BadTransform(f"crop: {write_number(value)} is not a whole number of pixels, at most {MAX_SIDE}")
    return int(value)
