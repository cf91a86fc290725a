"""The grammar of ImageServer, the first of the two programs that lazypix continues.

::

    <ident>.jpg?width=50&height=0          width 50, height in proportion
    <ident>.jpg?width=50&height=<50        width 50 in proportion; what is taller than 50 is cut off below
    <ident>.jpg?width=100&height=50        exactly 100x50, scaled to cover and cropped
    <width>/<ident>.jpg                    the same in the path
    <width>/<height>/<ident>.jpg

and the `sizes` of its forms: `100x50,150x<60`. Smaller images are enlarged; JPEG has quality 90. A query may
hold any native option besides (`rotate=90`); naming a `fit` makes all of it native.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lazypix.dialects import Target, Wanted, split_name, with_extension
from lazypix.errors import BadTransform
from lazypix.transform import Transform

QUALITY = 90
MAX_SIZES = 100
"""How many sizes one form may name."""

_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
_SIZES_RULE = "<width>x<height>, <width>x0 or <width>x<<height>, separated by commas"


class ImageServer:
    """The grammar of ImageServer's GET addresses."""

    name = "imageserver"

    def parse(self, target: Target) -> Wanted | None:
        if len(target.segments) == 1:
            return self._parse_query(target)
        *sides, name = target.segments
        if len(sides) > 2 or (len(sides) == 1 and not _looks_like_side(sides[0])):
            return None
        ident, extension = split_name(name)
        if target.query:
            raise BadTransform(f"Unknown option {target.query[0][0]!r}; the size stands in the path already")
        return _wanted(ident, extension, geometry(sides[0], sides[1] if len(sides) == 2 else "0"), [])

    def format(self, wanted: Wanted) -> str:
        width, height = size_text(wanted.transform)
        implied = QUALITY if wanted.transform.format == "jpg" and width is not None else None
        if wanted.transform.quality != implied:
            raise BadTransform(f"ImageServer's addresses cannot say {wanted.transform.text}")
        extension = wanted.source_format or wanted.transform.format or "auto"
        if width is None:
            return f"{wanted.ident}.{extension}"
        return f"{wanted.ident}.{extension}?width={width}&height={height}"

    def _parse_query(self, target: Target) -> Wanted | None:
        names = [name for name, _ in target.query]
        if "fit" in names or not ("width" in names or "height" in names):
            return None
        for name in ("width", "height"):
            if names.count(name) > 1:
                raise BadTransform(f"Option {name!r} is given twice")
        options = dict(target.query)
        ident, extension = split_name(target.segments[0])
        size = geometry(options.get("width"), options.get("height", "0"))
        more = [pair for pair in target.query if pair[0] not in ("width", "height")]
        return _wanted(ident, extension, size, more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One of the `sizes` of a form: the transform, and the texts that the answer echoes."""

    transform: Transform
    echo: tuple[str, str]


def parse_sizes(text: str) -> list[Size]:
    """Read the `sizes` field of a form; empty text means no sizes.

    Raises:
        BadTransform: a size is malformed, or there are more than `MAX_SIZES`.
    """
    tokens = [token.strip() for token in text.split(",") if token.strip()]
    if len(tokens) > MAX_SIZES:
        raise BadTransform(f"{len(tokens)} sizes are too many; at most {MAX_SIZES} are accepted")
    return [_size(token) for token in tokens]


def geometry(width: str | None, height: str) -> Transform:
    """Translate ImageServer's width and height (`"50"`, `"0"`, `"<50"`) into a transform.

    Raises:
        BadTransform: a side is malformed, or both are 0.
    """
    top = height.startswith("<")
    wide = _side("width", width or "0")
    high = _side("height", height.removeprefix("<"))
    if width is not None and not wide:
        raise BadTransform(f"width={width}: must be 1 or more; accepted: {_SIZES_RULE}")
    if not wide and not high:
        raise BadTransform("height=0: a size needs a width; accepted: " + _SIZES_RULE)
    if not high or not wide:
        if top:
            raise BadTransform(f"height={height}: must be more than 0 and go with a width; accepted: {_SIZES_RULE}")
        return Transform(width=wide or None, height=high or None, fit="outside")
    if top:
        return Transform(width=wide, height=high, fit="top")
    # A square loses the excess height of a tall image one part above to three below.
    return Transform(width=wide, height=high, fit="cover", gravity="portrait" if wide == high else "center")


def size_text(transform: Transform) -> tuple[str | None, str]:
    """Return ImageServer's width and height for a transform; (None, "0") for the whole image.

    Raises:
        BadTransform: ImageServer has no words for it.
    """
    plain = replace(transform, format=None, quality=None)
    if plain.is_identity:
        return None, "0"
    width, height = str(transform.width), str(transform.height or 0)
    if transform.width is not None:
        for text in (height, f"<{height}"):
            if (transform.height or text == "0") and geometry(width, text) == plain:
                return width, text
    raise BadTransform(f"ImageServer's addresses cannot say {transform.text}")


def _size(token: str) -> Size:
    width, x, height = token.partition("x")
    if not x or not _NUMBER.fullmatch(width) or not _NUMBER.fullmatch(height.removeprefix("<")):
        raise BadTransform(f"Unknown size {token[:64]!r}; accepted: {_SIZES_RULE}")
    transform = replace(geometry(width, height), quality=QUALITY, format="jpg")
    return Size(transform=transform, echo=(width, height))


def _wanted(ident: str, extension: str | None, size: Transform, more: list[tuple[str, str]]) -> Wanted:
    own = [pair for pair in _pairs(size) if pair[0] not in {name for name, _ in more}]
    wanted = with_extension(ident, Transform.from_options([*own, *more]), extension)
    transform = wanted.transform
    if transform.format == "jpg" and transform.quality is None:
        return replace(wanted, transform=replace(transform, quality=QUALITY))
    return wanted


def _pairs(size: Transform) -> list[tuple[str, str]]:
    pairs = [("width", size.width), ("height", size.height), ("fit", size.fit), ("gravity", size.gravity)]
    return [(name, str(value)) for name, value in pairs if value not in (None, "center")]


def _side(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadTransform(f"{name}={text[:64]!r} is not a number of pixels; accepted: {_SIZES_RULE}")
    return int(text)


def _looks_like_side(segment: str) -> bool:
    """Tell `<width>/<ident>.jpg` from the native `<text>/<ident>.jpg`, whose sizes always hold an `x`."""
    return bool(re.fullmatch(r"-?[0-9.]+", segment, re.ASCII))
