"""From a file to libvips images: probing headers, verifying, and loading as a plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyvips

from lazypix.engine import gif, png
from lazypix.engine.preview import shrunk, thumbhash
from lazypix.errors import BrokenImage, RendererLost, RenderFailed, UnsupportedImage
from lazypix.formats import SNIFF_BYTES, readable
from lazypix.plan import Limits, Plan, Probe, check_probe

# Loaders by format, each named outright: libvips' own guessing could be led to a loader that is not on this list.
_LOADERS: dict[str, str] = {
    "jpg": "jpegload",
    "png": "pngload",
    "gif": "gifload",
    "webp": "webpload",
    "avif": "heifload",
    "tiff": "tiffload",
}
# Formats of which libvips reads what it finds, and does not miss the end.
_IS_WHOLE = {"gif": gif.is_whole, "png": png.is_whole}
_ANIMATED = ("gif", "webp")
_MOST_BANDS = 5  # CMYK with alpha


def probe(path: str) -> Probe:
    """Read the header of the file at `path`.

    Raises:
        UnsupportedImage: no format that can be read.
        BrokenImage: the header is damaged.
    """
    with Path(path).open("rb") as file:
        found = readable(file.read(SNIFF_BYTES))
    try:
        image = _load(found.name, path, n=-1) if found.name in _ANIMATED else _load(found.name, path)
    except pyvips.Error as error:
        raise broken(found.name, error) from None
    if image.bands > _MOST_BANDS:
        raise UnsupportedImage(f"The image has {image.bands} channels; up to {_MOST_BANDS} are accepted")
    frames = _header(image, "n-pages", 1) if found.name in _ANIMATED else 1
    return Probe(
        format=found.name,
        width=image.width,
        height=_header(image, "page-height", image.height) if frames > 1 else image.height,
        frames=frames,
        orientation=_header(image, "orientation", 1),
        alpha=bool(image.hasalpha()),
    )


def verify(path: str, limits: Limits) -> Probe:
    """Probe the file, check it against `limits`, and only then decode every pixel of it, of which a preview is made.

    Raises:
        UnsupportedImage, TooLarge, BrokenImage: as `Engine.inspect`.
    """
    found = check_probe(probe(path), limits)
    try:
        if found.frames > 1:
            _load(found.format, path, n=-1, access="sequential").avg()
        small = shrunk(_load(found.format, path, access="sequential"))
    except pyvips.Error as error:
        raise broken(found.format, error) from None
    is_whole = _IS_WHOLE.get(found.format)
    if is_whole is not None and not is_whole(path):
        raise BrokenImage(f"The {found.format} image is truncated or damaged (it ends before its last block)")
    return replace(found, thumbhash=thumbhash(small))


def load_frames(path: str, plan: Plan) -> list[pyvips.Image]:
    """Load the frames that `plan` wants, shrunk by the decoder where the plan says so; lazily, as libvips does."""
    options: dict[str, Any] = {}
    if plan.shrink > 1:
        options = {"shrink": plan.shrink} if plan.source == "jpg" else {"scale": 1 / plan.shrink}
    if plan.frames == 1:
        return [_load(plan.source, path, access="sequential", **options)]
    strip = _load(plan.source, path, n=plan.frames, **options).copy_memory()
    height = strip.get("page-height")
    return [strip.crop(0, top, strip.width, height) for top in range(0, strip.height, height)]


def animation(path: str, source: str) -> dict[str, Any]:
    """Return the animation's metadata: `delay` (milliseconds a frame) and `loop` (0 is for ever)."""
    image = _load(source, path, n=-1)
    return {name: image.get(name) for name in ("delay", "loop") if image.get_typeof(name)}


def broken(name: str, error: pyvips.Error) -> BrokenImage | RendererLost:
    """Translate libvips' error while an image is read for the first time."""
    return _out_of_memory(error) or BrokenImage(f"The {name} image is truncated or damaged{_reason(error)}")


def failed(error: pyvips.Error) -> RenderFailed | RendererLost:
    """Translate libvips' error while a variant of a good image is made."""
    return _out_of_memory(error) or RenderFailed(f"This variant of the image cannot be made{_reason(error)}")


def _out_of_memory(error: pyvips.Error) -> RendererLost | None:
    # libvips has one kind of error for everything, and only its text tells.
    return RendererLost("The image needs more memory than is allowed") if "out of memory" in error.detail else None


def _reason(error: pyvips.Error) -> str:
    """Return the codec's complaint in brackets, and never a path."""
    lines = [line.strip() for line in error.detail.splitlines() if line.strip() and "/" not in line]
    return f" ({lines[-1]})" if lines else ""


def _load(source: str, path: str, **options: Any) -> pyvips.Image:
    # "truncated" refuses files that end early; "warning" would refuse many a camera's harmless oddities.
    # For TIFF a file that ends early is an "error": with "truncated" its missing pixels would be black.
    fail_on = "error" if source == "tiff" else "truncated"
    return getattr(pyvips.Image, _LOADERS[source])(path, fail_on=fail_on, **options)


def _header(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default
