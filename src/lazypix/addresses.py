"""The addresses under which images are given out: no I/O, and nothing of store or catalog is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from lazypix.dialects import Wanted
from lazypix.dialects.native import MOUNT, Native, address
from lazypix.errors import BadRequest, SettingsError
from lazypix.formats import by_extension
from lazypix.gate import Gate, subject_of
from lazypix.keys import check_ident
from lazypix.presets import MARK
from lazypix.signing.links import EXACT, LinkScope
from lazypix.transform import Transform

EXPIRY_STEP_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Writes the addresses of variants, and signs them where the gate wants it, or the caller.

    `base_url` is what stands before `/image/`. Times of expiry are rounded up to whole steps of `expiry_step_s`
    seconds, or of the time asked for where that is shorter: for that long a page has the same addresses, and caches
    know them again. A link is good for at least the time asked for, and for twice that at most.
    """

    base_url: str = ""
    gate: Gate = field(default_factory=Gate)
    expiry_step_s: int = EXPIRY_STEP_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))

    def url(
        self,
        ident: str,
        transform: Transform | str = "full",
        *,
        format: str | None = None,
        expires_s: float | None = None,
        scope: str | None = None,
    ) -> str:
        """Return the address of a variant; without a format the client's `Accept` header decides.

        `transform` may be its text, or a preset's name (`@thumb`), which is written as its text. It is signed if it
        could not be had otherwise, or if `expires_s` or `scope` are given: `exact` (the default), `presets`, or
        `<width>x<height>` for any size of this image up to that. Without `expires_s` it does not expire.

        Raises:
            BadIdent, BadTransform: malformed.
            BadRequest: `expires_s` or `scope` are.
            BadSignature: what is asked for lies outside of its own scope.
            SettingsError: it must be signed, and there are no keys (`url_keys`).
        """
        wanted = self._wanted(transform, format)
        target = address(ident, wanted)
        if expires_s is None and scope is None and not self.gate.needs_signature(wanted):
            return self.base_url + target
        chosen = EXACT if scope is None else LinkScope.parse(scope)
        self.gate.check_scope(chosen, wanted)
        return self._signed(target, chosen, expires_s, subject_of(ident))

    def original(self, ident: str, format: str, *, expires_s: float | None = None) -> str:
        """Return the address of the original as it came; `format` is its own, also one that is only read (TIFF).

        Raises:
            BadIdent, BadTransform: malformed.
            BadRequest, SettingsError: as `url`.
        """
        found = by_extension(format)
        if found is None or found.saves:
            return self.url(ident, format=format, expires_s=expires_s)
        whole = Wanted(ident=check_ident(ident), transform=Transform(), source_format=found.name)
        target = MOUNT + Native().format(whole)
        if expires_s is None and not self.gate.needs_signature(whole.transform):
            return self.base_url + target
        return self._signed(target, EXACT, expires_s, subject_of(ident))

    def plain(self, ident: str, transform: Transform | str = "full", *, format: str | None = None) -> str:
        """Return the address of a variant without a signature, whether it can be had so or not.

        Raises:
            BadIdent, BadTransform: malformed.
        """
        return self.base_url + address(ident, self._wanted(transform, format))

    def of_target(self, target: str, transform: Transform | None = None, *, expires_s: float | None = None) -> str:
        """Return the address of something else: of a raw path and query below the mount prefix, exactly.

        It is signed if it could not be had otherwise, or if `expires_s` is given; see `Gate.admit_path`.

        Raises:
            BadRequest: it is not percent-encoded, or `expires_s` is malformed.
            SettingsError: as `url`.
        """
        if expires_s is None and not self.gate.needs_signature(transform):
            return self.base_url + target
        return self._signed(target, EXACT, expires_s, None)

    def _wanted(self, transform: Transform | str, format: str | None) -> Transform:
        if isinstance(transform, Transform):
            return transform if format is None else transform.with_format(format)
        if transform.startswith(MARK):
            return self._wanted(self.gate.presets.transform(transform), format)
        return _read(transform, format)

    def _signed(self, target: str, scope: LinkScope, expires_s: float | None, subject: str | None) -> str:
        ring = self.gate.ring
        if not ring.keys:
            raise SettingsError("Links are signed with url_keys, and there are none; `lazypix url-key` makes one")
        expires_at = None if expires_s is None else self._expiry(expires_s)
        return self.base_url + ring.sign(target, scope=scope, expires_at=expires_at, subject=subject)

    def _expiry(self, expires_s: float) -> int:
        if not 1 <= expires_s <= 100 * 365 * 86_400:
            raise BadRequest(f"expires_s={expires_s} is not accepted; accepted: seconds, from 1 to a hundred years")
        step_s = max(1, min(self.expiry_step_s, int(expires_s)))
        return math.ceil((self.gate.clock() + expires_s) / step_s) * step_s


@lru_cache(maxsize=1024)
def _read(text: str, format: str | None) -> Transform:
    """Read a transform; a page has many addresses, and few sizes."""
    read = Transform.parse(text)
    return read if format is None else read.with_format(format)
