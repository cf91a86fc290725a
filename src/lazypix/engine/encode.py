"""Encoding: each format's saver with the settings that are a good bargain on a live path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyvips

from lazypix.engine.steps import PROFILE
from lazypix.plan import Plan

# At 1200 px these efforts cost less than half (WebP) and less than a tenth (AVIF) of libvips' defaults, for 3 and 7 %
# more bytes (measured; see docs/performance.md).
_WEBP_EFFORT = 2
_AVIF_EFFORT = 1


def _jpg(image: pyvips.Image, plan: Plan) -> bytes:
    return _bytes(image.jpegsave_buffer(Q=plan.quality, interlace=True, keep=_keep(image)))


def _png(image: pyvips.Image, _: Plan) -> bytes:
    return _bytes(image.pngsave_buffer(compression=6, keep=_keep(image)))


def _webp(image: pyvips.Image, plan: Plan) -> bytes:
    return _bytes(image.webpsave_buffer(effort=_WEBP_EFFORT, keep="none", **_loss(plan)))


def _avif(image: pyvips.Image, plan: Plan) -> bytes:
    options = {"compression": "av1", "effort": _AVIF_EFFORT, "bitdepth": 8, "keep": "none"}
    return _bytes(image.heifsave_buffer(**options, **_loss(plan)))


def _gif(image: pyvips.Image, _: Plan) -> bytes:
    return _bytes(image.gifsave_buffer(keep="none"))


_SAVERS: dict[str, Callable[[pyvips.Image, Plan], bytes]] = {
    "jpg": _jpg,
    "png": _png,
    "webp": _webp,
    "avif": _avif,
    "gif": _gif,
}


def encode(frames: list[pyvips.Image], animation: dict[str, Any], plan: Plan) -> bytes:
    """Encode the finished frames; several become one animation with the given delays and loop count."""
    if len(frames) == 1:
        return _SAVERS[plan.format](frames[0], plan)
    strip = pyvips.Image.arrayjoin(frames, across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    if "delay" in animation:
        strip.set_type(pyvips.GValue.array_int_type, "delay", animation["delay"])
    if "loop" in animation:
        strip.set_type(pyvips.GValue.gint_type, "loop", animation["loop"])
    return _SAVERS[plan.format](strip, plan)


def _loss(plan: Plan) -> dict[str, Any]:
    return {"lossless": True} if plan.lossless else {"Q": plan.quality}


def _keep(image: pyvips.Image) -> str:
    """Strip all metadata; only a grey image still needs the profile that it was not converted by."""
    return "icc" if image.interpretation == "b-w" and image.get_typeof(PROFILE) else "none"


def _bytes(buffer: Any) -> bytes:
    return bytes(buffer)
