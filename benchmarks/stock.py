"""Filling a lazypix data folder with many idents of the same few pictures, quickly."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lazypix import Library


def stock(folder: Path, path: Path, idents: list[str]) -> None:
    """Add the picture at `path` under each ident.

    The first one is added as anybody would. The others get their rows in the catalog, and hard links to the first
    one's original: what a server does for them is the same, and thousands of idents cost no disk.
    """
    with Library.open(folder) as library:
        first = library.add(path, ident=idents[0])
        extension = path.suffix[1:]
        origin = library.store.local_path(library.keys.original(first.ident, extension))
        assert origin is not None
        for ident in idents[1:]:
            target = library.store.local_path(library.keys.original(ident, extension))
            assert target is not None
            library.catalog.claim(replace(first, ident=ident))
            target.parent.mkdir(parents=True)
            os.link(origin, target)
            library.catalog.publish(ident)
