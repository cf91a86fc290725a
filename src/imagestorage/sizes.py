"""Sizes as applications name them, read as transforms. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from lazypix.errors import BadTransform
from lazypix.transform import Transform

Size = str | Sequence[int | str | None]
"""`"200x100"`, or `(200, 100)`; a side that is left out, or None, follows from the ratio."""

_SIZE = re.compile(r"[0-9]*x[0-9]*", re.ASCII)
_ACCEPTED = "accepted: <width>x<height>, <width>x or x<height>, in pixels from 1"


def read_size(size: Size) -> Transform:
    """Return the transform of a size: inside it, never enlarged.

    Raises:
        BadTransform: it is none; the message says what is accepted.
    """
    if not isinstance(size, str):
        if len(size) != 2:
            raise BadTransform(f"A size has two sides, not {len(size)}; accepted: (width, height), in pixels")
        size = "x".join("" if side is None else str(side) for side in size)
    if not _SIZE.fullmatch(size):
        raise BadTransform(f"size={size[:40]!r} is not accepted; {_ACCEPTED}")
    return Transform.parse(size)


def requested_size(asked: Size) -> Transform:
    """Return the transform that a requested URL names in its query as `size`, or a tuple is.

    Raises:
        BadTransform: there is no size, more than one, or it is none.
    """
    if not isinstance(asked, str):
        return read_size(asked)
    try:
        sizes = parse_qs(urlsplit(asked).query, keep_blank_values=True, max_num_fields=100).get("size", [])
    except ValueError:
        raise BadTransform(f"The requested URL is malformed; accepted: a URL with ?size=…; {_ACCEPTED}") from None
    if len(sizes) != 1:
        said = "no size" if not sizes else f"{len(sizes)} sizes"
        raise BadTransform(f"The requested URL has {said}; needed is one, as in ?size=200x100; {_ACCEPTED}")
    return read_size(sizes[0])
