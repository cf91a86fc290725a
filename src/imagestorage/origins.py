"""Originals are stored: downloaded, brought within a size, once for an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from lazypix import Image, Library
from lazypix.catalog.source_rows import digest_of
from lazypix.errors import IdentTaken, UnknownImage
from lazypix.formats import by_name
from lazypix.incoming import Incoming
from lazypix.plan import Probe, make_plan
from lazypix.transform import Transform

_SOURCE = "imagestorage_source"
"""In the metadata: a digest of the URL, which may be a secret itself."""
PATIENCE_S = 30.0
"""For how long one who stores the same image is waited for: longer than a download may take."""


def add_origin(library: Library, url: str, ident: str, bounds: Transform) -> Image:
    """Download an original and store it inside `bounds`, whose format is decided: never enlarged.

    One that is within them, and of the format, is stored as it came. The same URL for the same ident is not
    downloaded again.

    Raises:
        IdentTaken: another image has this ident, or had it.
        LazypixError: as `Library.add_url`.
    """
    source = digest_of(url)

    def store(incoming: Incoming, *, filename: str | None = None) -> Image:
        with _bounded(library, incoming, bounds) as origin:
            name = _renamed(filename, bounds)
            return library.add_incoming(origin, ident=ident, filename=name, metadata={_SOURCE: source})

    # Others of this machine that were asked for the same at the same time wait, and find it stored.
    with library.locks.hold(f"{ident}/origin", patience_s=PATIENCE_S):
        return _stored_before(library, ident, source) or library.sources.add(url, store)


def _stored_before(library: Library, ident: str, source: str) -> Image | None:
    try:
        image = library.get(ident)
    except UnknownImage:
        return None
    if image.metadata.get(_SOURCE) != source:
        raise IdentTaken(f"The ident {ident} is taken; existing data is never replaced")
    return image


@contextmanager
def _bounded(library: Library, incoming: Incoming, bounds: Transform) -> Iterator[Incoming]:
    """Give what was received, or a smaller image of the format that is wanted, made of it."""
    probe = library.backlog.inspect(str(incoming.path), library.limits).result()
    if _fits(probe, bounds):
        yield incoming
        return
    plan = make_plan(bounds, probe, library.limits)
    body = library.backlog.render(str(incoming.path), plan).result()
    with library.incoming.new() as smaller:
        smaller.write(body)
        yield smaller


def _fits(probe: Probe, bounds: Transform) -> bool:
    width, height = probe.upright_size
    inside = width <= (bounds.width or width) and height <= (bounds.height or height)
    return inside and probe.format == bounds.format


def _renamed(filename: str | None, bounds: Transform) -> str | None:
    if filename is None:
        return None
    return f"{PurePath(filename).stem}.{by_name(bounds.format or '').extension}"
