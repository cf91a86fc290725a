"""Rows of stored variants, written many at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lazypix.catalog import Catalog, StoredVariant
from lazypix.errors import StoreFailed, StoreFull

log = logging.getLogger("lazypix")


class VariantRecorder:
    """Records stored variants a moment after they were stored, all of that moment in one transaction.

    A transaction of its own for each costs a flush of the disk, and makes all who write to SQLite wait. A process
    that is killed in between leaves variants without a row: they are served all the same, and go with their image.
    `gone` is called with the ident of each image that was deleted in the meantime. Safe to use from many threads.
    """

    def __init__(self, catalog: Catalog, gone: Callable[[str], None], *, delay_s: float = 0.5) -> None:
        self._catalog = catalog
        self._gone = gone
        self._delay_s = delay_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._rows: list[tuple[str, StoredVariant]] = []
        self._writing = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lazypix-record")

    def add(self, ident: str, variant: StoredVariant) -> None:
        """Have a variant recorded soon."""
        with self._lock:
            self._rows.append((ident, variant))
            if len(self._rows) == 1:
                self._writer.submit(self._write_soon)

    def flush(self) -> None:
        """Record now what was added before."""
        with self._writing:
            with self._lock:
                rows, self._rows = self._rows, []
            if not rows:
                return
            try:
                gone = self._catalog.add_variants(rows)
            except (StoreFailed, StoreFull) as error:
                log.warning("%d variants were stored but not recorded: %s", len(rows), error)
                return
        for ident in gone:
            self._gone(ident)

    def close(self) -> None:
        """Record what is left. Nothing may be added any more."""
        self._closing.set()
        self._writer.shutdown(wait=True)
        self.flush()

    def _write_soon(self) -> None:
        self._closing.wait(self._delay_s)
        self.flush()
