"""The grammar of other servers' images.

::

    /remote/<canonical text>.<ext>?url=<percent-encoded URL>

With `.auto`, or without an extension, the format is negotiated. A preset's name stands for its text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from lazypix.dialects import AUTO, Target, Wanted, with_extension
from lazypix.dialects.native import MOUNT
from lazypix.errors import BadRequest, NotFound
from lazypix.keys import check_ident
from lazypix.transform import Transform

REMOTE = "/remote/"
"""The path below which images of other servers are served."""
SERVED = (MOUNT, REMOTE)
"""The paths below which images are served."""

_ANY = "remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWanted:
    """What is wanted of the image at a URL."""

    url: str
    transform: Transform
    source_format: str | None = None
    """As `Wanted`'s."""

    def of(self, ident: str) -> Wanted:
        """Return the same of an image of ours."""
        return Wanted(ident=check_ident(ident), transform=self.transform, source_format=self.source_format)


def parse_remote(path: str, query: str, read: Callable[[str], Transform] = Transform.parse) -> RemoteWanted:
    """Read a raw path and query; `read` reads a transform.

    Raises:
        NotFound: it is not of this grammar.
        BadRequest: it is, and wrong.
    """
    target = Target.split(path, query, REMOTE)
    accepted = f"{REMOTE}<size>.<ext>?url=<percent-encoded URL>"
    if len(target.segments) != 1:
        raise NotFound(f"Nothing is served here; accepted: {accepted}")
    urls = [value for name, value in target.query if name == "url"]
    for name, _ in target.query:
        if name != "url":
            raise BadRequest(f"Unknown option {name[:64]!r}; accepted: {accepted}")
    if len(urls) != 1 or not urls[0]:
        raise BadRequest(f"The address names {len(urls)} URLs; accepted: {accepted}")
    text, extension = _split(target.segments[0])
    wanted = with_extension(_ANY, read(text), extension)
    return RemoteWanted(url=urls[0].partition("#")[0], transform=wanted.transform, source_format=wanted.source_format)


def remote_address(url: str, transform: Transform | str = "full", format: str | None = None) -> str:
    """Return the path and query of a variant of another server's image.

    Raises:
        BadTransform: malformed.
    """
    wanted = Transform.parse(transform) if isinstance(transform, str) else transform
    if format is not None:
        wanted = wanted.with_format(format)
    return f"{REMOTE}{wanted.stem}.{wanted.format or AUTO}?url={quote(url, safe='')}"


def _split(name: str) -> tuple[str, str | None]:
    """Split a text from its extension; there are texts with dots in them (`dpr=1.5`), and they need an extension."""
    text, dot, extension = name.rpartition(".")
    if not dot:
        return name, None
    return text, None if extension.lower() == AUTO else extension
