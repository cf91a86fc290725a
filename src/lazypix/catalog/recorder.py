"""Rows of variants, written many at a time: those about to be stored, and which were used."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from lazypix.catalog import Catalog, StoredVariant
from lazypix.catalog.variant_rows import Name, name_of
from lazypix.errors import Busy, LazypixError

log = logging.getLogger("lazypix")


@dataclass(frozen=True, slots=True)
class Recorded:
    """Whether a variant was recorded, and if not, why."""

    gone: bool = False
    """Its image is not ready (any more)."""
    later_fence: int = 0
    """The row that is there has this greater fence; 0: it has none."""

    def __bool__(self) -> bool:
        """Tell whether it may be stored."""
        return not (self.gone or self.later_fence)


class VariantRecorder:
    """Records variants, all that come within a moment in one transaction. Safe to use from many threads.

    A transaction of its own for each would cost a flush of the disk, and make all who write to SQLite wait.
    """

    def __init__(self, catalog: Catalog, *, delay_s: float = 0.01, uses_delay_s: float = 60.0) -> None:
        self._catalog = catalog
        self._delay_s = delay_s
        self._uses_delay_s = uses_delay_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._rows: list[tuple[str, StoredVariant, Future[Recorded]]] = []
        self._uses: set[Name] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lazypix-record")
        self._noter: threading.Timer | None = None

    def record(self, ident: str, variant: StoredVariant) -> Future[Recorded]:
        """Have a variant recorded that is about to be stored.

        The future tells when its row is durable, and whether it may be stored: not when the image is not there any
        more, or the row has a greater fence. It raises `StoreFailed` or `StoreFull` when the catalog cannot do it.
        """
        done: Future[Recorded] = Future()
        with self._lock:
            if self._closing.is_set():
                done.set_exception(Busy("Shutting down; ask again in a moment"))
                return done
            self._rows.append((ident, variant, done))
            if len(self._rows) == 1:
                self._writer.submit(self._write_soon)
        return done

    def note_use(self, name: Name) -> None:
        """Have it noted soon that a variant was read from the store."""
        with self._lock:
            if self._closing.is_set():
                return
            self._uses.add(name)
            if len(self._uses) == 1:
                self._noter = threading.Timer(self._uses_delay_s, self._note)
                self._noter.daemon = True  # so that a process that does not close can end at once all the same
                self._noter.start()

    def close(self) -> None:
        """Write what is left. Nothing is recorded any more."""
        with self._lock:
            self._closing.set()
        self._writer.shutdown(wait=True)
        if self._noter is not None:
            self._noter.cancel()
            self._noter.join()
            self._note()

    def _write_soon(self) -> None:
        self._closing.wait(self._delay_s)
        with self._lock:
            rows, self._rows = self._rows, []
        try:
            refused = self._catalog.variants.add([(ident, variant) for ident, variant, _ in rows])
        except Exception as error:  # noqa: BLE001  # handed to those who wait
            for _, _, done in rows:
                done.set_exception(error)
        else:
            for ident, variant, done in rows:
                later_fence = refused.late.get(name_of(ident, variant), 0)
                done.set_result(Recorded(gone=ident in refused.gone, later_fence=later_fence))

    def _note(self) -> None:
        with self._lock:
            uses, self._uses = self._uses, set()
        if not uses:
            return
        try:
            self._catalog.variants.used(uses)
        except LazypixError as error:  # only the choice of what is evicted first gets worse
            log.warning("that %d variants were used was not recorded: %s", len(uses), error)
