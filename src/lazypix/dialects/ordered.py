"""The dialects in the order in which they are asked."""

from __future__ import annotations

from lazypix.dialects import Dialect, Target, Wanted
from lazypix.dialects.imageserver import ImageServer
from lazypix.dialects.native import Native
from lazypix.errors import NotFound
from lazypix.presets import Presets


def with_presets(presets: Presets) -> tuple[Dialect, ...]:
    """Return all dialects; the native one knows these presets."""
    return (ImageServer(), Native(presets))


DIALECTS = with_presets(Presets())


def parse(target: Target, dialects: tuple[Dialect, ...] = DIALECTS) -> Wanted:
    """Read an address in the first dialect whose grammar it is.

    Raises:
        NotFound: no dialect knows it.
        BadRequest: one does, and it is wrong.
    """
    for dialect in dialects:
        wanted = dialect.parse(target)
        if wanted is not None:
            return wanted
    raise NotFound("Nothing is served here; accepted: <size>/<ident>.<ext> or <ident>.<ext>?width=…&height=…")
