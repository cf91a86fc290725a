"""lazypix' own grammar.

::

    <canonical text>/<ident>.<ext>      200x100,fit=cover/0190….webp
    @<preset>/<ident>.<ext>             @thumb/0190….webp
    <ident>.<ext>?<options>             0190….webp?width=200&height=100&fit=cover
    <ident>.<ext>                       the whole image

Without an extension, or with `.auto`, the format is negotiated. A preset is its transform under a name; it is written
as its text.
"""

from __future__ import annotations

from lazypix.dialects import AUTO, Target, Wanted, split_name, with_extension
from lazypix.errors import BadRequest
from lazypix.keys import check_ident
from lazypix.presets import Presets
from lazypix.transform import Transform

MOUNT = "/image/"
"""The path below which images are served."""


class Native:
    """The grammar of the canonical text."""

    name = "native"

    def __init__(self, presets: Presets | None = None) -> None:
        self._presets = presets or Presets()

    def parse(self, target: Target) -> Wanted | None:
        if len(target.segments) > 2:
            return None
        ident, extension = split_name(target.segments[-1])
        if len(target.segments) == 1:
            return with_extension(ident, Transform.from_options(target.query), extension)
        if target.query:
            raise BadRequest(f"Unknown option {target.query[0][0]!r}; the size stands in the path already")
        return with_extension(ident, self._presets.transform(target.segments[0]), extension)

    def format(self, wanted: Wanted) -> str:
        extension = wanted.source_format or wanted.transform.format or AUTO
        if wanted.transform.is_identity:
            return f"{wanted.ident}.{extension}"
        return f"{wanted.transform.stem}/{wanted.ident}.{extension}"


def address(ident: str, transform: Transform | str = "full", format: str | None = None) -> str:
    """Return the path of a variant; without a format the client's `Accept` header decides.

    Raises:
        BadIdent, BadTransform: malformed.
    """
    wanted = Transform.parse(transform) if isinstance(transform, str) else transform
    if format is not None:
        wanted = wanted.with_format(format)
    return MOUNT + Native().format(Wanted(ident=check_ident(ident), transform=wanted))
