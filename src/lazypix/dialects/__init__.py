"""URL grammars. Each dialect reads addresses into idents and transforms, and writes them again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import parse_qsl, unquote

from lazypix.errors import BadRequest, NotFound
from lazypix.formats import WRITABLE, by_extension
from lazypix.keys import check_ident
from lazypix.transform import Transform

AUTO = "auto"
"""The extension that leaves the format to the client's `Accept` header, as no extension does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address, taken apart: `segments` of the path after the mount point, and the query, all decoded."""

    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def split(cls, path: str, query: str, mount: str) -> Target:
        """Take a raw path below `mount` and a raw query apart.

        Raises:
            NotFound: the path is not below `mount`.
            BadRequest: it is not percent-encoded UTF-8.
        """
        if not path.startswith(mount):
            raise NotFound(f"Nothing is served here; images are below {mount}")
        try:
            segments = tuple(unquote(part, errors="strict") for part in path.removeprefix(mount).split("/"))
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
        except ValueError:
            raise BadRequest("The address is not percent-encoded UTF-8, or has too many options") from None
        return cls(segments=segments, query=tuple(pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an address asks for. A transform without a format leaves it to the client's `Accept` header."""

    ident: str
    transform: Transform
    source_format: str | None = None
    """The name of a format that can only be had as the original itself (TIFF), or None."""


class Dialect(Protocol):
    """One URL grammar."""

    name: str

    def parse(self, target: Target) -> Wanted | None:
        """Read an address; None when it is not of this grammar.

        Raises:
            BadRequest: it is of this grammar and wrong; the message names the token and what is accepted.
        """
        ...

    def format(self, wanted: Wanted) -> str:
        """Write the address (path and query, below the mount point) that `parse` reads as `wanted`.

        Raises:
            BadTransform: the grammar cannot say this.
        """
        ...


def split_name(name: str) -> tuple[str, str | None]:
    """Split `<ident>.<ext>` into the ident and its extension; None for no extension and for `auto`.

    Raises:
        BadIdent: what stands before the extension is no ident.
    """
    ident, dot, extension = name.rpartition(".")
    if not dot:
        return check_ident(name), None
    return check_ident(ident), None if extension.lower() == AUTO else extension


def with_extension(ident: str, transform: Transform, extension: str | None) -> Wanted:
    """Combine an address' extension with what the transform says of the format.

    Raises:
        BadRequest: the extension is no image format's, or contradicts the transform.
    """
    if extension is None:
        return Wanted(ident=ident, transform=transform)
    found = by_extension(extension)
    accepted = ", ".join((*WRITABLE, AUTO))
    if found is None or not (found.saves or found.loads):
        raise BadRequest(f"Unknown extension .{extension[:16]}; accepted: {accepted}")
    if transform.format is not None and transform.format != found.name:
        raise BadRequest(f"format={transform.format} contradicts the extension .{extension}; use .{AUTO} or drop one")
    if not found.saves:
        if not transform.is_identity:
            raise BadRequest(f"A variant cannot be made as {found.name}; accepted: {accepted}")
        return Wanted(ident=ident, transform=transform, source_format=found.name)
    return Wanted(ident=ident, transform=replace(transform, format=found.name))
