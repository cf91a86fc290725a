"""Who may ask for which variants: everybody, who has a signed link, everybody for presets. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lazypix.dialects import Wanted
from lazypix.dialects.native import MOUNT
from lazypix.errors import BadSignature, LinkExpired
from lazypix.plan import largest
from lazypix.presets import Presets
from lazypix.signing.links import KeyRing, Link, LinkScope
from lazypix.tokens import Focal
from lazypix.transform import Transform

Mode = Literal["open", "signed", "presets"]
"""The values of the setting `urls`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Decides by its raw address whether a request may be answered.

    - `open`: everybody may ask for everything.
    - `signed`: nothing is answered without a signature.
    - `presets`: everybody may ask for presets, by name or by their text; for all else a signature is needed.

    A signature that is there is verified in every mode: an address that was tampered with, or has expired, is never
    answered.
    """

    mode: Mode = "open"
    ring: KeyRing = field(default_factory=KeyRing)
    presets: Presets = field(default_factory=Presets)
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""

    def admit(self, path: str, query: str, wanted: Wanted) -> int | None:
        """Let a request for an image pass; return when its link expires, in seconds since 1970, or None for never.

        `path` (below the mount prefix) and `query` are raw, `wanted` is what a dialect read in them.

        Raises:
            BadSignature: it needs a signature and has none; or has one that is wrong, or for something else.
            LinkExpired: its time is over.
        """
        return self._judge(self.ring.verify(path, query, subject=subject_of(wanted.ident)), wanted.transform)

    def admit_path(self, path: str, query: str, transform: Transform | None = None) -> int | None:
        """Let a request pass that is for no image of ours: as `admit`, but a link's scope must be exact.

        `transform` is what shall be made there; None, which is no preset: something else.

        Raises:
            BadSignature, LinkExpired: as `admit`.
        """
        return self._judge(self.ring.verify(path, query), transform)

    def needs_signature(self, transform: Transform | None) -> bool:
        """Tell whether this cannot be had without a signature."""
        if self.mode == "presets":
            return transform is None or not self.presets.allow(transform)
        return self.mode == "signed"

    def check_scope(self, scope: LinkScope, transform: Transform | None) -> None:
        """Refuse what a link of this scope is not good for.

        A box bounds the result's pixels, dpr included, whatever the image is. So both sides must be named, and not
        only be covered (`fit=outside`); the whole image is refused. So are `crop` and a focal point: piece by piece
        they would give the original away at its full size, the latter a long one.

        Raises:
            BadSignature: the transform is outside of the scope.
        """
        if scope.is_exact:
            return
        if scope.box is None:
            if transform is None or not self.presets.allow(transform):
                raise BadSignature(f"This link is good for presets only; accepted: {self.presets.names}")
            return
        most = largest(transform) if transform is not None and not _is_piece(transform) else None
        if most is None or most[0] > scope.box[0] or most[1] > scope.box[1]:
            raise BadSignature(
                f"This link is good for sizes of up to {scope.code} pixels (times dpr); accepted: a size with both "
                "sides, without crop and focal point, of any fit but outside"
            )

    def _judge(self, link: Link | None, transform: Transform | None) -> int | None:
        if link is None:
            self._check_unsigned(transform)
            return None
        if link.expires_at is not None and link.expires_at <= self.clock():
            raise LinkExpired("This link has expired; accepted: a fresh one from where it was given out")
        self.check_scope(link.scope, transform)
        return link.expires_at

    def _check_unsigned(self, transform: Transform | None) -> None:
        if not self.needs_signature(transform):
            return
        if self.mode == "presets":
            raise BadSignature(f"This needs a signed link; accepted without: {self.presets.names}")
        raise BadSignature("Images are given out by signed links only; accepted: an address as it was given out")


def _is_piece(transform: Transform) -> bool:
    """Tell whether it cuts out a part that whoever asks may choose freely."""
    return transform.crop is not None or isinstance(transform.gravity, Focal)


def subject_of(ident: str) -> str:
    """Return what links to any form of an image are bound to: its path without size and extension."""
    return MOUNT + ident
