"""The addresses under which images are given out: no I/O, and nothing of store or catalog is needed."""

from __future__ import annotations

from dataclasses import dataclass

from lazypix.dialects.native import address
from lazypix.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Writes the addresses of variants. `base_url` is what stands before `/image/`."""

    base_url: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))

    def url(self, ident: str, transform: Transform | str = "full", *, format: str | None = None) -> str:
        """Return the address of a variant; without a format the client's `Accept` header decides.

        Raises:
            BadIdent, BadTransform: malformed.
        """
        return self.base_url + address(ident, transform, format)
