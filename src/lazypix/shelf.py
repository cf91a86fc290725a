"""The stored variants: each has its row before it has its blob, and loses the blob before the row."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Catalog, Image, StoredVariant
from lazypix.catalog.recorder import VariantRecorder
from lazypix.catalog.variant_rows import created_us, name_of
from lazypix.errors import BlobExists, BlobMissing, Busy, StoreFailed, StoreFull, TooLarge
from lazypix.formats import by_name
from lazypix.keys import KeyScheme
from lazypix.lease.holding import FREE, Turn
from lazypix.orders import Orders
from lazypix.stores import BlobStore
from lazypix.transform import Transform

log = logging.getLogger("lazypix")

_USES_REMEMBERED, _USE_NOTED_FOR_S = 100_000, 3600.0
_EVICTED_AT_ONCE = 500
_BEING_STORED_S = 300.0


class Shelf:
    """Where variants are put, found and removed. Safe to use from many threads and processes.

    `max_variants` bounds the variants of one image, `max_bytes` those of all (0: no bound); the ones that were not
    read for the longest time go first. That one was read is noted once an hour.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        keys: KeyScheme,
        orders: Orders,
        max_variants: int = 0,
        max_bytes: int = 0,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._keys = keys
        self._orders = orders
        self._max_variants = max_variants
        self._max_bytes = max_bytes
        self._recorder = VariantRecorder(catalog)
        self._noted: MemoryCache[bool] = MemoryCache(max_bytes=_USES_REMEMBERED, ttl_s=_USE_NOTED_FOR_S)

    def close(self) -> None:
        """Record what is left. To be called last."""
        self._recorder.close()

    def key(self, ident: str, transform: Transform) -> str:
        """Return the key of a variant, whose format is decided."""
        return self._keys.variant(ident, transform.stem, by_name(transform.format or "").extension)

    def find(self, ident: str, transform: Transform) -> bytes | None:
        """Return a stored variant's bytes, or None."""
        key = self.key(ident, transform)
        try:
            body = self._store.get(key)
        except BlobMissing:
            return None
        self._note_use(ident, transform, key)
        return body

    def find_file(self, ident: str, transform: Transform) -> tuple[Path, int] | None:
        """Return the file of a stored variant, and its size in bytes; None when the store has no files.

        Raises:
            BlobMissing: the variant is not stored.
        """
        key = self.key(ident, transform)
        path = self._store.local_path(key)
        if path is None:
            return None
        size = self._store.head(key).size
        self._note_use(ident, transform, key)
        return path, size

    def find_key(self, ident: str, transform: Transform) -> str | None:
        """Return the key of a stored variant without reading it, or None."""
        key = self.key(ident, transform)
        try:
            self._store.head(key)
        except BlobMissing:
            return None
        self._note_use(ident, transform, key)
        return key

    def keep(self, image: Image, transform: Transform, body: bytes, turn: Turn = FREE) -> None:
        """Store a variant that was made, if it is still our turn.

        It can be made again, so trouble is logged, and fails nobody.
        """
        key = self.key(image.ident, transform)
        now = datetime.now(UTC)
        variant = StoredVariant(
            stem=transform.stem, format=transform.format or "", size=len(body), created=now, used=now,
            sha256=hashlib.sha256(body).hexdigest(), fence=turn.fence,
        )  # fmt: skip
        try:
            if not turn.fence and turn.is_ours():
                self.place(image.ident, variant, body)
            elif not self._place_in_turn(image.ident, variant, body, turn):
                log.info("variant %s was made but not stored: others have the turn, or its image is gone", key)
        except (StoreFailed, StoreFull, TooLarge, Busy) as error:
            log.warning("variant %s was made but not stored: %s", key, error)

    def place(self, ident: str, variant: StoredVariant, source: bytes | Path) -> bool:
        """Store a finished variant, its row first; return False when its image is not there (any more).

        Raises:
            StoreFailed, StoreFull, Busy: it could not be stored, or not now.
        """
        if not self._recorder.record(ident, variant).result():
            return False
        key = self._keys.folder(ident) + variant.name
        self._store.put(key, source, durable=False)
        self._stored(ident, variant, key)
        return True

    def _place_in_turn(self, ident: str, variant: StoredVariant, body: bytes, turn: Turn) -> bool:
        """Store a variant made under a lease; one that comes too late changes neither row nor blob.

        The process may be stopped between any two of these steps, and go on when another has the lease.
        """
        recorded = self._record_in_turn(ident, variant, turn) if turn.is_ours() else None
        if recorded is None or not turn.is_ours():
            return False  # who has the turn now writes its row over ours
        key = self._keys.folder(ident) + variant.name
        try:
            self._store.create(key, body)
        except BlobExists:
            if not turn.is_ours():
                return False
            self._record_as_stored(ident, recorded, key)
        if not turn.is_ours():  # stopped in the middle of writing: who has the turn now does the rest
            self._remove_if_unknown(ident, variant, key)
            return False
        self._stored(ident, variant, key)
        return True

    def _record_as_stored(self, ident: str, variant: StoredVariant, key: str) -> None:
        """Have the row say what lies there, should another version of libvips have made it."""
        there = self._store.get(key)
        digest = hashlib.sha256(there).hexdigest()
        if digest != variant.sha256:
            self._recorder.record(ident, replace(variant, size=len(there), sha256=digest)).result()

    def _record_in_turn(self, ident: str, variant: StoredVariant, turn: Turn) -> StoredVariant | None:
        """Record a variant; return it as it was recorded, None if it was not."""
        told = self._recorder.record(ident, variant).result()
        if told.later_fence and turn.is_confirmed():
            # Whoever wrote that row has no lease any more, and numbers went back since: leases are given by another
            # server now, or its clock was wrong. Were the row to stay, nothing would be stored until they caught up.
            variant = replace(variant, fence=told.later_fence + 1)
            told = self._recorder.record(ident, variant).result()
        return variant if told else None

    def _stored(self, ident: str, variant: StoredVariant, key: str) -> None:
        self._remove_if_unknown(ident, variant, key)
        if self._max_variants:
            self._evict_crowded(ident)
        if jobs := self._orders.stored(ident, variant):
            self._catalog.jobs.add(jobs)

    def remove(self, rows: Iterable[tuple[str, StoredVariant]]) -> tuple[int, int]:
        """Remove stored variants: the blobs first, then the rows; return how many, and their bytes."""
        number = size = 0
        remaining = iter(rows)
        while batch := list(itertools.islice(remaining, _EVICTED_AT_ONCE)):
            for ident, variant in batch:
                self._store.delete(self._keys.folder(ident) + variant.name)
            self.forget(batch)
            young = time.time() - _BEING_STORED_S
            for ident, variant in batch:  # its blob may have come only now, between the two
                if variant.created.timestamp() > young:
                    self._store.delete(self._keys.folder(ident) + variant.name)
            number, size = number + len(batch), size + sum(variant.size for _, variant in batch)
        return number, size

    def evict(self) -> tuple[int, int]:
        """Remove the least used variants until all are within the bound; return how many, and their bytes."""
        if not self._max_bytes:
            return 0, 0
        number = size = 0
        over = self._catalog.variants.total()[1] - self._max_bytes
        while size < over:
            rows: list[tuple[str, StoredVariant]] = []
            least_used = self._catalog.variants.least_used(
                limit=_EVICTED_AT_ONCE, spares_named=self._orders.spares_named
            )
            for row in least_used:
                if size + sum(r[1].size for r in rows) >= over:
                    break
                rows.append(row)
            if not rows:
                break
            removed = self.remove(rows)
            number, size = number + removed[0], size + removed[1]
        if number:
            log.info("evicted %d variants (%d bytes) that were not used for the longest time", number, size)
        return number, size

    def _evict_crowded(self, ident: str) -> None:
        for crowded, excess in self._catalog.variants.crowded([ident], self._max_variants).items():
            least_used = self._catalog.variants.least_used(
                ident=crowded, limit=excess, spares_named=self._orders.spares_named
            )
            self.remove(least_used)

    def _remove_if_unknown(self, ident: str, variant: StoredVariant, key: str) -> None:
        """A deletion or a purge may have looked for blobs just before this one was stored."""
        if not self._catalog.variants.is_wanted(name_of(ident, variant)):
            self._store.delete(key)

    def forget(self, rows: Sequence[tuple[str, StoredVariant]]) -> None:
        """Forget variants whose blobs are gone, here and on the replicas; not those that were stored anew."""
        of_image: dict[str, list[StoredVariant]] = {}
        for ident, variant in rows:
            of_image.setdefault(ident, []).append(variant)
        jobs = [job for ident, gone in of_image.items() for job in self._orders.dropped(ident, gone)]
        seen = {name_of(ident, variant): created_us(variant) for ident, variant in rows}
        self._catalog.variants.remove(seen.keys(), unless_rewritten_since=seen, jobs=jobs)

    def _note_use(self, ident: str, transform: Transform, key: str) -> None:
        if self._noted.get(key) is None:
            self._noted.set(key, True, 1)
            self._recorder.note_use((ident, transform.stem, transform.format or ""))
