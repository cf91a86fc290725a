"""Which format a client gets that left it to us."""

from __future__ import annotations

from lazypix.catalog import Image
from lazypix.errors import BadTransform
from lazypix.formats import by_name
from lazypix.plan import Limits, make_plan
from lazypix.transform import Transform


def choose_format(ranked: tuple[str, ...], image: Image, transform: Transform, limits: Limits) -> str:
    """Choose the format of a negotiated variant among those a client takes, best first.

    Animations stay animated (WebP, GIF); transparency is kept (AVIF, WebP, PNG) unless a background is given;
    the rest is AVIF, WebP or JPEG. A format that cannot hold the result is passed over. A client that takes none of
    these gets the best that it does take, and one that takes nothing at all the most common one.
    """
    if image.frames > 1:
        fitting: tuple[str, ...] = ("webp",) if transform.lossless else ("webp", "gif")
    elif transform.lossless:
        fitting = ("webp", "png")
    elif image.probe.alpha and transform.background is None:
        fitting = ("avif", "webp", "png")
    else:
        fitting = ("avif", "webp", "jpg")
    able = [name for name in ranked if by_name(name).lossless or not transform.lossless]
    candidates = [name for name in able if name in fitting] or able or [fitting[-1]]
    return next((name for name in candidates if _holds(name, image, transform, limits)), candidates[-1])


def _holds(name: str, image: Image, transform: Transform, limits: Limits) -> bool:
    """Tell whether a result in this format is possible; what is impossible in every format is told later."""
    most = by_name(name).max_side
    if most >= max(image.width, image.height, limits.max_side):
        return True
    try:
        return max(make_plan(transform.as_format(name), image.probe, limits).size) <= most
    except BadTransform:
        return False
