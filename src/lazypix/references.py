"""`ImageReference`: what an application keeps of an image in its own row, so that pages need no lookup. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazypix.errors import BadRequest
from lazypix.formats import READABLE
from lazypix.keys import check_ident
from lazypix.tokens import Focal

VERSION = 1
"""Of the value's own form."""
MAX_SIDE = 10**6
"""Pixels, more than any format has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An image as an application knows it: enough for its addresses and for the place that it takes on a page."""

    ident: str
    width: int
    """Pixels, upright."""
    height: int
    """Pixels, upright."""
    format: str
    """Name of the original's format."""
    thumbhash: str | None = None
    """A preview in some 25 bytes, base64; None: there is none."""
    focus: Focal | None = None
    """What must be seen when the image is cropped; None: the middle."""
    version: int = VERSION

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            BadIdent, BadRequest: a part is not what it has to be; an application may have it from anywhere.
        """
        check_ident(self.ident)
        if not 0 < self.width <= MAX_SIDE or not 0 < self.height <= MAX_SIDE:
            size = f"{self.width:g}x{self.height:g}"
            raise BadRequest(f"The size {size} is not accepted; accepted: 1 to {MAX_SIDE} pixels each way")
        if self.format not in READABLE:
            raise BadRequest(f"format={str(self.format)[:32]!r} is not known; accepted: {', '.join(READABLE)}")
        if self.thumbhash is not None and not isinstance(self.thumbhash, str):
            raise BadRequest(f"A {type(self.thumbhash).__name__} is no ThumbHash; accepted: text, or nothing")

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON-able ones; `focus` is `[x, y]`, 0..1 from left and top."""
        return {
            "ident": self.ident,
            "width": self.width,
            "height": self.height,
            "format": self.format,
            "thumbhash": self.thumbhash,
            "focus": None if self.focus is None else [self.focus.x, self.focus.y],
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageReference:
        """Return the reference that `to_json` made this of; also one of an earlier version.

        Raises:
            BadRequest: it is none, or of a version that is not known yet.
        """
        try:
            version = int(value.get("version", VERSION))
            focus = value.get("focus")
            if version > VERSION:
                raise BadRequest(f"An image reference of version {version} is not known; accepted: up to {VERSION}")
            return cls(
                ident=str(value["ident"]), width=int(value["width"]), height=int(value["height"]),
                format=str(value["format"]), thumbhash=value.get("thumbhash"),
                focus=None if focus is None else Focal(x=float(focus[0]), y=float(focus[1])), version=version,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise BadRequest(f"This is no image reference ({type(error).__name__}: {error})") from None
