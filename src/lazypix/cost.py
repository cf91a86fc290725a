"""What work costs a renderer, estimated before it is begun: seconds of one core.

Good to about a factor of two for photographs on a core of today (`python -m benchmarks.cost` compares): enough to
tell what is heavy from what is not, and how long a queue is. Flat pictures cost less, slow cores more.
"""

from __future__ import annotations

from lazypix.plan import Plan

HEAVY_S = 1.0
"""What keeps a renderer busy for longer is heavy: it must not have all of them."""

_START_S = 0.003  # the smallest thumbnail there is
# Nanoseconds for a pixel of the source; and, of these, what a decoder that shrinks does not save.
_DECODING_NS = {"jpg": 6.5, "png": 12.0, "gif": 10.0, "webp": 17.0, "avif": 50.0, "tiff": 5.0}
_ENTROPY_NS = {"jpg": 2.5, "webp": 10.0}
_SHRINKING_NS = 4.0  # a pixel that was decoded
_ENLARGING_NS = 30.0  # a pixel of what it is enlarged to
# Nanoseconds for a pixel of the result.
_ENCODING_NS = {"jpg": 22.0, "png": 80.0, "gif": 60.0, "webp": 45.0, "avif": 120.0}
_LOSSLESS_NS = {"webp": 300.0, "avif": 400.0}
_PALETTE_NS = 4000.0  # finding 256 colours for a pixel of a photograph; what was a GIF has them
# Nanoseconds for a byte of a file that is decoded whole: how many pixels it has is known only after that.
_VERIFYING_NS = {"jpg": 40.0, "png": 11.0, "gif": 30.0, "webp": 250.0, "avif": 400.0, "tiff": 3.0}


def rendering_s(plan: Plan) -> float:
    """Return how long a renderer will take for a plan, seconds."""
    source_px = plan.source_width * plan.source_height * plan.frames
    decoded_px = source_px / plan.shrink**2
    scaled_px = plan.width * plan.height * plan.frames
    entropy_ns = _ENTROPY_NS.get(plan.source, 0.0)
    nanoseconds = (
        source_px * entropy_ns
        + decoded_px * (_DECODING_NS[plan.source] - entropy_ns + _SHRINKING_NS)
        + (scaled_px * _ENLARGING_NS if scaled_px > decoded_px else 0.0)
        + plan.size[0] * plan.size[1] * plan.frames * _encoding_ns(plan)
    )
    return _START_S + nanoseconds / 1e9


def verifying_s(format_name: str, size: int) -> float:
    """Return how long a renderer will take to decode a file of `size` bytes whole, seconds."""
    return _START_S + size * _VERIFYING_NS[format_name] / 1e9


def _encoding_ns(plan: Plan) -> float:
    if plan.format == "gif" and plan.source != "gif":
        return _PALETTE_NS
    plain = _ENCODING_NS[plan.format]
    return _LOSSLESS_NS.get(plan.format, plain) if plan.lossless else plain
