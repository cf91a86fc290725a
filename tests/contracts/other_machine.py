"""A machine of its own, as a program: carries out the orders of its standard input on a catalog, one a line."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from tests.waiting import WAIT_S

from lazypix import Library
from lazypix.catalog import Image
from lazypix.changes import redis
from lazypix.changes.opening import open_changes
from lazypix.engine.idle import IdleEngine
from lazypix.errors import LazypixError
from lazypix.plan import Probe


def _carry_out(library: Library, order: str, *idents: str) -> None:
    catalog = library.catalog
    for ident in idents:
        if order == "add":
            probe = Probe(format="jpg", width=40, height=30)
            catalog.adopt(Image(ident=ident, sha256="0" * 64, size=1, probe=probe, created=datetime.now(UTC)))
        elif order == "trash":
            library.undelete_s = 60
            library.delete(ident)
        elif order == "undelete":
            library.undelete(ident)
        elif order == "delete":
            library.delete(ident, for_good=True)
        elif order == "delete and die":
            catalog.begin_delete(ident)
            os._exit(1)
        elif order == "strike":
            catalog.health.strike(ident)
            library.originals.forget(ident, in_catalog=True)
        elif order in ("damaged", "mended"):
            was = catalog.get(ident).damaged
            catalog.health.mark(ident, damaged=order == "damaged")
            if was != (order == "damaged"):
                library.originals.forget(ident, in_catalog=True)
        else:
            assert order == "forget"
            library.originals.forget(ident)


def main(catalog: str, setting: str, folder: str) -> None:
    """Read orders until the end of the input; answer each with `done`, or the name of the error."""
    redis.PUBLISH_S = WAIT_S  # what is given up is not heard
    changes = open_changes(setting) if setting else None
    with Library.open(folder, catalog=catalog, changes=changes, engine=IdleEngine(), tidies=False) as library:
        for line in sys.stdin:
            order, *idents = line.rstrip().split("|")
            try:
                _carry_out(library, order, *idents)
            except LazypixError as error:
                print(type(error).__name__, flush=True)
            else:
                print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
