"""What a variant shall be: the `Transform` value and its canonical text.

The canonical text is a list of tokens joined by commas. The first may be a size, every other one is
`name=value` in the order of `OPTIONS`; defaults are left out::

    200x100                                        inside 200 by 100 pixels, never enlarged
    200x                                           inside a width of 200 pixels
    300x300,fit=cover,gravity=north,quality=70     exactly 300 by 300, cropped, the top kept
    crop=0.1:0.1:0.5:0.5,rotate=90                 no resizing
    full                                           nothing but a new encoding

`Transform.parse` and `Transform.text` are inverses. One meaning has one text: values that say the same
(a rotation by 180 with a vertical flip, and a horizontal flip) are made equal when they are built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, cast

from lazypix.errors import BadTransform
from lazypix.formats import WRITABLE, by_name
from lazypix.tokens import (
    GRAVITIES,
    Focal,
    Gravity,
    Region,
    normalise,
    read_colour,
    read_decimal,
    read_flag,
    read_format,
    read_gravity,
    read_one_of,
    read_region,
    read_side,
    read_whole,
    read_word,
    write_gravity,
    write_number,
    write_region,
)

Fit = Literal["inside", "cover", "fill", "outside", "top"]
FITS: tuple[Fit, ...] = ("inside", "cover", "fill", "outside", "top")
ROTATIONS = (0, 90, 180, 270)
MAX_DPR = 8.0
FULL = "full"

# (rotate, flip) pairs that turn the image the same way as a shorter or smaller pair.
_SAME_TURN = {(180, "h"): (0, "v"), (180, "v"): (0, "h"), (270, "h"): (90, "v"), (270, "v"): (90, "h")}
_SIZE = re.compile(r"([0-9]*)x([0-9]*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """What the result shall be. Without any argument: the whole image, only encoded anew.

    `width` and `height` are CSS pixels, multiplied by `dpr`; `None` follows from the ratio. `quality` is the
    encoder's own scale 1..100. `format` None means: not decided yet. A value may be given as its text has it: any
    colour's name, `hv` for both mirrors, `jpeg` for `jpg`; it is brought to its one form.

    Raises:
        BadTransform: a value is of another kind or out of its range, or two values exclude each other.
    """

    width: int | None = None
    height: int | None = None
    fit: Fit = "inside"
    gravity: Gravity = "center"
    crop: Region | None = None
    rotate: int = 0
    flip: str = ""
    dpr: float = 1.0
    background: str | None = None
    quality: int | None = None
    lossless: bool = False
    format: str | None = None

    def __post_init__(self) -> None:
        for name, default in _DEFAULTS.items():
            given = getattr(self, name)
            normalise(self, name, default if given == default else _read(name, given))
        self._check_size()
        self._settle_turn()
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise _bad("quality", self.quality)
        if self.lossless and self.quality is not None:
            raise BadTransform("quality has no meaning together with lossless=true; give one of them")
        if self.format is not None:
            self._check_format()

    def _check_size(self) -> None:
        sides = (self.width is not None) + (self.height is not None)
        self._check_fit(sides)
        normalise(self, "dpr", round(float(self.dpr), 2))
        if not 1 <= self.dpr <= MAX_DPR:
            raise _bad("dpr", write_number(self.dpr))
        if self.dpr != 1 and sides == 0:
            raise BadTransform(f"dpr={write_number(self.dpr)} needs a size; accepted: {_SIZE_RULE}")
        if self.gravity == Focal(x=0.5, y=0.5):
            normalise(self, "gravity", "center")
        if self.gravity != "center" and self.fit != "cover":
            raise BadTransform(f"gravity={write_gravity(self.gravity)} needs fit=cover with width and height")

    def _check_fit(self, sides: int) -> None:
        if self.fit != "inside" and sides == 0:
            raise BadTransform(f"fit={self.fit} needs a size; accepted: {_SIZE_RULE}")
        if self.fit == "top" and sides == 1:
            raise BadTransform("fit=top needs both width and height")
        if self.fit in ("cover", "fill") and sides == 1:
            normalise(self, "fit", "outside")  # the other side follows from the ratio: all three agree

    def _settle_turn(self) -> None:
        rotate, flip = self.rotate, self.flip
        if flip == "hv":  # both mirrors are half a turn
            rotate, flip = (rotate + 180) % 360, ""
        rotate, flip = _SAME_TURN.get((rotate, flip), (rotate, flip))
        normalise(self, "rotate", rotate)
        normalise(self, "flip", flip)

    def _check_format(self) -> None:
        found = by_name(cast(str, self.format))
        if self.lossless and not found.lossless:
            raise BadTransform(f"lossless=true cannot be had as {found.name}; accepted: {_able('lossless')}")
        if self.quality is not None and found.default_quality is None:
            accepted = _able("default_quality")
            raise BadTransform(f"quality={self.quality} has no meaning for {found.name}; accepted: {accepted}")

    @classmethod
    def parse(cls, text: str) -> Transform:
        """Read a transform from its text (canonical or not).

        Raises:
            BadTransform: a token is unknown, malformed, given twice or impossible; the message names it.
        """
        pairs: list[tuple[str, str]] = []
        for position, token in enumerate(text.split(",")):
            name, equals, value = token.partition("=")
            if equals:
                pairs.append((name, value))
            elif position == 0:
                pairs.extend(_read_size(token))
            else:
                raise BadTransform(f"Unknown token {_shown(token)}; accepted: name=value with one of {_NAMES}")
        return cls.from_options(pairs)

    @classmethod
    def from_options(cls, pairs: Iterable[tuple[str, str]]) -> Transform:
        """Build a transform from `(name, value)` texts, as a query string has them; `width` and `height` too.

        Raises:
            BadTransform: as `parse`.
        """
        values: dict[str, str] = {}
        for name, text in pairs:
            if name not in _BY_NAME:
                raise BadTransform(f"Unknown option {_shown(name)}; accepted: width, height, {_NAMES}")
            if name in values:
                raise BadTransform(f"Option {name!r} is given twice")
            values[name] = text
        return cls(**values)  # type: ignore[arg-type]  # texts are read when the transform is built

    @property
    def text(self) -> str:
        """The canonical text, with the format when it is decided."""
        return _write(self, OPTIONS)

    @property
    def stem(self) -> str:
        """The canonical text without the format: the name of the variant's file before its extension."""
        return _write(self, tuple(option for option in OPTIONS if option.name != "format"))

    @property
    def is_identity(self) -> bool:
        """Whether nothing is asked but the whole image (a format may be)."""
        return self.stem == FULL

    def with_format(self, name: str) -> Transform:
        """Return the same transform with its format decided by a person, who may write `jpeg` for `jpg`.

        Raises:
            BadTransform: no such format, or one that the other values exclude.
        """
        return replace(self, format=name)

    def as_format(self, name: str) -> Transform:
        """Return the same transform with its format decided by us; a quality the format does not have is dropped."""
        quality = self.quality if by_name(name).default_quality is not None else None
        return replace(self, format=name, quality=quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a transform: how its value is read and written, and what it accepts, in words."""

    name: str
    accepts: str
    about: str
    read: Callable[[str], object | None]
    write: Callable[[Transform], str | None]
    takes: tuple[type, ...] = ()
    """Types of values that are right as they are; others are read as text."""


def _read(name: str, given: object) -> object:
    option = _BY_NAME[name]
    value = given if isinstance(given, option.takes) else option.read(str(given))
    if value is None:
        raise _bad(name, given)
    return value


def _write(transform: Transform, options: tuple[Option, ...]) -> str:
    size = ""
    if transform.width is not None or transform.height is not None:
        size = f"{transform.width or ''}x{transform.height or ''}"
    tokens = [size] if size else []
    for option in options:
        value = option.write(transform)
        if value is not None:
            tokens.append(f"{option.name}={value}")
    return ",".join(tokens) or FULL


def _read_size(token: str) -> list[tuple[str, str]]:
    if token == FULL:
        return []
    match = _SIZE.fullmatch(token)
    if match is None or not any(match.groups()):
        raise BadTransform(f"Unknown token {_shown(token)}; accepted: {_SIZE_RULE}, {FULL}, or name=value")
    return [(name, side) for name, side in zip(("width", "height"), match.groups(), strict=True) if side]


def _shown(token: str) -> str:
    return repr(token if len(token) <= 64 else token[:64] + "…")


def _bad(name: str, given: object) -> BadTransform:
    return BadTransform(f"{name}={_shown(str(given))} is not accepted; accepted: {_BY_NAME[name].accepts}")


def _able(ability: str) -> str:
    return ", ".join(name for name in WRITABLE if getattr(by_name(name), ability))


def _unless(default: object, name: str, write: Callable[[Transform], str]) -> Callable[[Transform], str | None]:
    return lambda transform: None if getattr(transform, name) == default else write(transform)


_SIDE = "a whole number of pixels from 1 up to the server's limit (8192 unless set)"
_SIZE_RULE = f"<width>x<height>, <width>x or x<height>, each {_SIDE}"

OPTIONS: tuple[Option, ...] = (
    Option(
        name="fit", accepts=", ".join(FITS), read=read_word(*FITS),
        about="`inside`: within the box, never enlarged. `cover`: exactly the box, cropped. `fill`: exactly the box, "
        "stretched. `outside`: in proportion, no side smaller than the box. `top`: the width in proportion; "
        "what is taller than the box is cut off at the bottom.",
        write=_unless("inside", "fit", lambda t: t.fit),
    ),
    Option(
        name="gravity", accepts=f"{', '.join(GRAVITIES)}, or a focal point x:y in fractions such as 0.3:0.7",
        read=read_gravity, takes=(Focal,),
        about="What `fit=cover` keeps: a compass point; a focal point; `attention` or `entropy` (found in the "
        "picture); `portrait` cuts excess height one part above to three below.",
        write=_unless("center", "gravity", lambda t: write_gravity(t.gravity)),
    ),
    Option(
        name="crop", accepts="x:y:width:height in whole pixels, or in fractions with a decimal point",
        read=read_region, takes=(Region,),
        about="The region of the upright original to use, before resizing: `crop=10:20:300:200` in pixels, "
        "`crop=0.1:0.1:0.5:0.5` in fractions.",
        write=_unless(None, "crop", lambda t: write_region(cast(Region, t.crop))),
    ),
    Option(
        name="rotate", accepts="0, 90, 180, 270", read=read_one_of(*ROTATIONS),
        about="Quarter turns clockwise, in degrees, after `crop` and before the size is applied.",
        write=_unless(0, "rotate", lambda t: str(t.rotate)),
    ),
    Option(
        name="flip", accepts="h, v, hv", read=read_word("h", "v", "hv"),
        about="Mirror left-right (`h`), top-bottom (`v`) or both, after `rotate`.",
        write=_unless("", "flip", lambda t: t.flip),
    ),
    Option(
        name="dpr", accepts="a number from 1 to 8", read=read_decimal, takes=(int, float),
        about="Device pixel ratio: width and height are multiplied by it.",
        write=_unless(1.0, "dpr", lambda t: write_number(t.dpr)),
    ),
    Option(
        name="background", accepts="rrggbb or rgb in hex, or a basic colour name such as white",
        read=read_colour,
        about="Colour put behind transparent pixels. JPEG has no transparency and uses white unless told.",
        write=_unless(None, "background", lambda t: cast(str, t.background)),
    ),
    Option(
        name="quality", accepts="a whole number from 1 to 100", read=read_whole,
        about="The encoder's quality. Default: " + ", ".join(
            f"{name} {by_name(name).default_quality}" for name in WRITABLE if by_name(name).default_quality) + ".",
        write=_unless(None, "quality", lambda t: str(t.quality)),
    ),
    Option(
        name="lossless", accepts="true, false", read=read_flag, takes=(bool,),
        about=f"Keep every pixel as it is ({_able('lossless')}).",
        write=_unless(False, "lossless", lambda _: "true"),
    ),
    Option(
        name="format", accepts=", ".join(WRITABLE), read=read_format,
        about="The format of the result, where the address has no extension that says it.",
        write=_unless(None, "format", lambda t: cast(str, t.format)),
    ),
)  # fmt: skip
"""The options in canonical order. A further step is one more row (and its work in `engine.steps`)."""

_SIDES = tuple(
    Option(name=name, accepts=_SIDE, about=f"The {name} of the box.", read=read_side, write=lambda _: None)
    for name in ("width", "height")
)
_BY_NAME = {option.name: option for option in (*_SIDES, *OPTIONS)}
_NAMES = ", ".join(option.name for option in OPTIONS)

_DEFAULTS = {field.name: field.default for field in fields(Transform)}

assert _DEFAULTS.keys() == _BY_NAME.keys()
