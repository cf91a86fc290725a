"""From a transform and a probed image to a plan: all arithmetic of fit, crop, turn and limits, on integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lazypix.errors import BadTransform, TooLarge
from lazypix.formats import by_name
from lazypix.tokens import Focal, Gravity, Region
from lazypix.transform import Transform

ENGINE_VERSION = 1
"""Part of every ETag; raised when the same plan would give other pixels."""

WHITE = "ffffff"
# By which factors a JPEG decoder may shrink while loading, and how much must then be left to shrink, at least.
# libvips' own thumbnailer leaves 2. Half and eighth sizes bear less at SSIM 0.99 against a full decode (measured on
# 12 megapixels; see docs/performance.md), and spare the decoder up to three quarters of its pixels.
JPEG_SHRINKS = ((8, 1.7), (4, 2.0), (2, 1.3))
# WebP decoders shrink by any whole number.
WEBP_LEFT_TO_SHRINK = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused before any work is done for it."""

    max_bytes: int = 64 * 1024 * 1024
    """Bytes of an original."""
    max_pixels: int = 50_000_000
    """Pixels of an image, summed over its frames; of originals and of results."""
    max_frames: int = 100
    max_side: int = 8192
    """Pixels of a result's width and height, where a size is asked for; the whole image may be larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the header of an image says; `width` and `height` in pixels of one frame, as stored (not upright)."""

    format: str
    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    """EXIF orientation, 1..8. Source: Exif 2.32, 4.6.4 A, tag 0x0112."""
    alpha: bool = False
    thumbhash: str | None = None
    """A preview in some 25 bytes, base64; see `lazypix.thumbhash`. None: it was not made."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as a person sees the image."""
        return Turn.exif(self.orientation).size(self.width, self.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in whole pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Smart:
    """A rectangle that the engine places where the picture is most interesting."""

    width: int
    height: int
    by: Literal["attention", "entropy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One of the eight ways to lay a rectangle down: quarter turns clockwise, then perhaps a left-right mirror."""

    quarters: int = 0
    mirror: bool = False

    @classmethod
    def exif(cls, orientation: int) -> Turn:
        """Return the turn that brings an image of this EXIF orientation upright."""
        quarters, mirror = _EXIF.get(orientation, (0, False))
        return cls(quarters=quarters, mirror=mirror)

    @classmethod
    def of(cls, transform: Transform) -> Turn:
        """Return the turn that `rotate` and `flip` ask for."""
        half = 2 if transform.flip == "v" else 0  # top-bottom = half a turn, then left-right
        return cls(quarters=(transform.rotate // 90 + half) % 4, mirror=transform.flip != "")

    def then(self, after: Turn) -> Turn:
        """Return the one turn that does this one and then `after`."""
        # A mirror reverses the sense of the turns that follow it.
        quarters = self.quarters + (-after.quarters if self.mirror else after.quarters)
        return Turn(quarters=quarters % 4, mirror=self.mirror != after.mirror)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return what a rectangle of this size becomes."""
        return (height, width) if self.quarters % 2 else (width, height)

    def source_of(self, box: Box, width: int, height: int) -> Box:
        """Return where `box` lies before the turn; `width` and `height` are the image's size after it."""
        if self.mirror:
            box = Box(left=width - box.left - box.width, top=box.top, width=box.width, height=box.height)
        for _ in range(self.quarters):  # undo one clockwise quarter at a time
            box = Box(left=box.top, top=width - box.left - box.width, width=box.height, height=box.width)
            width, height = height, width
        return box


_EXIF = {
    1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True),
    5: (1, True), 6: (1, False), 7: (3, True), 8: (3, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the engine does, in this order and without a choice left.

    Decode (`source`, its `frames`, at 1/`shrink` of the size where the decoder can), cut out `region` (pixels of the
    stored image, before the shrink; without it all of the image: `source_width` x `source_height`), resize to
    `width` x `height` (stored orientation), `turn`, cut out `crop` (pixels of the turned image), put `background`
    behind transparency, encode.
    """

    source: str
    source_width: int
    source_height: int
    frames: int
    shrink: int
    region: Box | None
    width: int
    height: int
    turn: Turn
    crop: Box | Smart | None
    background: str | None
    format: str
    quality: int | None
    lossless: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        if self.crop is not None:
            return self.crop.width, self.crop.height
        return self.turn.size(self.width, self.height)


def check_probe(probe: Probe, limits: Limits) -> Probe:
    """Return `probe` unchanged when the image may be decoded.

    Raises:
        TooLarge: too many frames, or too many pixels summed over the frames.
    """
    if probe.frames > limits.max_frames:
        raise TooLarge(f"The image has {probe.frames} frames; at most {limits.max_frames} are accepted")
    pixels = probe.width * probe.height * probe.frames
    if pixels > limits.max_pixels:
        of_frames = f" in {probe.frames} frames" if probe.frames > 1 else ""
        raise TooLarge(
            f"The image is {probe.width}x{probe.height}{of_frames}, {pixels / 1e6:.1f} megapixels; "
            f"at most {limits.max_pixels / 1e6:g} are accepted"
        )
    return probe


def check_size(transform: Transform, limits: Limits) -> Transform:
    """Return `transform` unchanged when the size it names is within the limits (before any image is known).

    Raises:
        BadTransform: a side, multiplied by dpr, is over `limits.max_side`, or an exact size over its pixels.
    """
    for name, side in (("width", transform.width), ("height", transform.height)):
        if side is not None and _px(side, transform.dpr) > limits.max_side:
            times = f" at dpr={transform.dpr:g}" if transform.dpr != 1 else ""
            raise BadTransform(f"{name}={side}{times} is over the limit of {limits.max_side} pixels a side")
    if transform.width and transform.height and transform.fit in ("cover", "fill"):
        width, height = _px(transform.width, transform.dpr), _px(transform.height, transform.dpr)
        if width * height > limits.max_pixels:  # whatever the image
            raise BadTransform(f"{width}x{height} is over the limit of {limits.max_pixels / 1e6:g} megapixels")
    return transform


def largest(transform: Transform) -> tuple[int, int] | None:
    """Return the width and height that a result never exceeds, whatever the image; None: there is no such bound.

    Where one side follows from the image (`300x`, `fit=outside`), it may be of any length.
    """
    if transform.width is None or transform.height is None or transform.fit == "outside":
        return None
    return _px(transform.width, transform.dpr), _px(transform.height, transform.dpr)


def make_plan(transform: Transform, probe: Probe, limits: Limits) -> Plan:
    """Resolve a transform, whose format is decided, against one image.

    Raises:
        BadTransform: the region lies outside of the image, or the result (or an image on the way to it) is
            over the limits.
    """
    assert transform.format is not None
    check_size(transform, limits)
    upright, asked = Turn.exif(probe.orientation), Turn.of(transform)
    region = _region(transform.crop, *probe.upright_size)
    whole_width, whole_height = (region.width, region.height) if region else probe.upright_size
    wide, high = asked.size(whole_width, whole_height)
    (scaled_width, scaled_height), crop = _fit(transform, wide, high)
    frames = probe.frames if by_name(transform.format).animates else 1
    result = (crop.width, crop.height) if crop else (scaled_width, scaled_height)
    sized = transform.width is not None or transform.height is not None
    max_side = limits.max_side if sized else by_name(transform.format).max_side
    _check_result(result, (scaled_width, scaled_height), frames, max_side, limits.max_pixels)
    turn = upright.then(asked)
    width, height = turn.size(scaled_width, scaled_height)
    stored = upright.source_of(region, *probe.upright_size) if region else None
    return Plan(
        source=probe.format,
        source_width=stored.width if stored else probe.width,
        source_height=stored.height if stored else probe.height,
        frames=frames,
        shrink=_shrink(probe, stored, width, height),
        region=stored,
        width=width,
        height=height,
        turn=turn,
        crop=crop,
        background=_background(transform, probe),
        format=transform.format,
        quality=_quality(transform),
        lossless=transform.lossless,
    )


def _region(region: Region | None, width: int, height: int) -> Box | None:
    if region is None:
        return None
    across, down = (width, height) if region.unit == "fraction" else (1, 1)
    # Rounded first: 0.29 * 100 is 28.999999999999996 in binary.
    left, top = int(round(region.x * across, 6)), int(round(region.y * down, 6))
    if left >= width or top >= height:
        raise BadTransform(f"crop begins at {left}:{top}, outside of the image of {width}x{height}")
    right = min(width, max(left + 1, round((region.x + region.width) * across)))
    bottom = min(height, max(top + 1, round((region.y + region.height) * down)))
    if (left, top, right, bottom) == (0, 0, width, height):
        return None
    return Box(left=left, top=top, width=right - left, height=bottom - top)


def _fit(transform: Transform, wide: int, high: int) -> tuple[tuple[int, int], Box | Smart | None]:
    """Return the size to scale a `wide` x `high` image to, and what to cut out of that."""
    width = _px(transform.width, transform.dpr) if transform.width else None
    height = _px(transform.height, transform.dpr) if transform.height else None
    if width is None and height is None:
        return (wide, high), None
    if width is None or height is None:
        return _by_one_side(width, height, wide, high, enlarge=transform.fit != "inside"), None
    if transform.fit == "fill":
        return (width, height), None
    if transform.fit == "top":
        tall = _scale(high, width, wide)
        cut = Box(left=0, top=0, width=width, height=height) if tall > height else None
        return (width, tall), cut
    by_width = width * high < height * wide  # the width is the tighter side
    if transform.fit == "inside":
        if wide <= width and high <= height:
            return (wide, high), None
        return ((width, _scale(high, width, wide)) if by_width else (_scale(wide, height, high), height)), None
    scaled = (_scale(wide, height, high), height) if by_width else (width, _scale(high, width, wide))
    if transform.fit == "outside" or scaled == (width, height):
        return scaled, None
    return scaled, _place(transform.gravity, scaled, width, height)


def _by_one_side(width: int | None, height: int | None, wide: int, high: int, *, enlarge: bool) -> tuple[int, int]:
    if width is not None:
        width = width if enlarge else min(width, wide)
        return width, _scale(high, width, wide)
    assert height is not None
    height = height if enlarge else min(height, high)
    return _scale(wide, height, high), height


def _place(gravity: Gravity, scaled: tuple[int, int], width: int, height: int) -> Box | Smart:
    """Cut `width` x `height` out of an image of size `scaled`, which covers it."""
    spare_width, spare_height = scaled[0] - width, scaled[1] - height
    if gravity == "attention" or gravity == "entropy":
        return Smart(width=width, height=height, by="attention" if gravity == "attention" else "entropy")
    if isinstance(gravity, Focal):
        left = _clamp(round(gravity.x * scaled[0] - width / 2), spare_width)
        top = _clamp(round(gravity.y * scaled[1] - height / 2), spare_height)
    elif gravity == "portrait":
        left, top = spare_width // 2, spare_height // 4
    else:
        left = 0 if "west" in gravity else spare_width if "east" in gravity else spare_width // 2
        top = 0 if "north" in gravity else spare_height if "south" in gravity else spare_height // 2
    return Box(left=left, top=top, width=width, height=height)


def _check_result(
    result: tuple[int, int], scaled: tuple[int, int], frames: int, max_side: int, max_pixels: int
) -> None:
    if max(result) > max_side:
        raise BadTransform(f"The result would be {result[0]}x{result[1]}, over the limit of {max_side} pixels a side")
    for width, height in (result, scaled):
        if width * height * frames > max_pixels:
            raise BadTransform(
                f"The image would be enlarged to {width}x{height}, over {max_pixels / 1e6:g} megapixels"
            )


def _shrink(probe: Probe, region: Box | None, width: int, height: int) -> int:
    """How much the decoder itself may shrink: powers of two for JPEG, any whole number for WebP, else nothing."""
    source_width, source_height = (region.width, region.height) if region else (probe.width, probe.height)
    ratio = min(source_width / width, source_height / height)
    if probe.format == "jpg":
        return next((shrink for shrink, left in JPEG_SHRINKS if ratio >= shrink * left), 1)
    if probe.format == "webp":
        return max(1, int(ratio / WEBP_LEFT_TO_SHRINK))
    return 1


def _background(transform: Transform, probe: Probe) -> str | None:
    assert transform.format is not None
    if not probe.alpha:
        return None
    return transform.background or (None if by_name(transform.format).alpha else WHITE)


def _quality(transform: Transform) -> int | None:
    assert transform.format is not None
    return transform.quality or by_name(transform.format).default_quality


def _px(side: int, dpr: float) -> int:
    return round(side * dpr)


def _scale(side: int, to: int, of: int) -> int:
    """Return `side * to / of`, rounded half up, at least 1."""
    return max(1, (2 * side * to + of) // (2 * of))


def _clamp(value: int, most: int) -> int:
    return max(0, min(value, most))
