"""Variants: looked up in the store, or made once however many ask, and stored."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lazypix.catalog import Catalog, Image, StoredVariant
from lazypix.catalog.recorder import VariantRecorder
from lazypix.engine import Engine
from lazypix.errors import BlobMissing, RendererLost, StoreFailed, StoreFull
from lazypix.formats import by_name
from lazypix.keys import KeyScheme
from lazypix.lease import Flight, KeyLocks, SingleFlight
from lazypix.originals import Originals
from lazypix.plan import Limits, Plan, make_plan
from lazypix.quarantine import Quarantine
from lazypix.stores import BlobStore
from lazypix.transform import Transform

log = logging.getLogger("lazypix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The encoded result of a transform of an image."""

    image: Image
    transform: Transform
    """With its format decided."""
    body: bytes
    timings_ms: tuple[tuple[str, float], ...] = ()
    """How long each step took, for one that was made just now; empty for one that was stored."""

    @property
    def media_type(self) -> str:
        """The MIME type, such as `image/webp`."""
        return by_name(self.transform.format or "").mime


class Variants:
    """The variants of a library, stored and in the making. Safe to use from many threads.

    `queue` bounds the variants being made at once; `patience_s` how long one is waited for that another process
    makes.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        engine: Engine,
        keys: KeyScheme,
        limits: Limits,
        originals: Originals,
        locks: KeyLocks,
        queue: int,
        patience_s: float,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._engine = engine
        self._keys = keys
        self._limits = limits
        self._originals = originals
        self._locks = locks
        self._patience_s = patience_s
        self._makers = ThreadPoolExecutor(2 * (os.cpu_count() or 1) + 2, thread_name_prefix="lazypix-make")
        self._flights: SingleFlight[Variant] = SingleFlight(self._makers, max_keys=queue)
        self._recorder = VariantRecorder(catalog, self._remove_deleted)
        self._quarantine = Quarantine(catalog, engine, limits)

    def stop_making(self) -> None:
        """Finish what is being made, and make nothing any more."""
        self._makers.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Record what was stored. To be called last, after `stop_making`."""
        self._recorder.close()

    def stored(self, image: Image, transform: Transform) -> Variant | None:
        """Return a variant if it lies in the store; `transform` has its format decided."""
        try:
            body = self._store.get(self._key(image, transform))
        except BlobMissing:
            return None
        return Variant(image=image, transform=transform, body=body)

    def stored_file(self, image: Image, transform: Transform) -> tuple[Path, int] | None:
        """Return the file of a stored variant, and its size in bytes; None when the store has no files.

        Raises:
            BlobMissing: the variant is not stored.
        """
        key = self._key(image, transform)
        path = self._store.local_path(key)
        return (path, self._store.head(key).size) if path is not None else None

    def recorded(self, image: Image) -> Sequence[StoredVariant]:
        """Return what is known of the variants of an image that are stored."""
        self._recorder.flush()
        return self._catalog.variants(image.ident)

    def make(self, image: Image, transform: Transform) -> Flight[Variant]:
        """Begin to make a variant, or join in when it is being made. It is delivered first, and stored then.

        Raises:
            BadTransform, Quarantined, Busy: as `Library.variant`.
        """
        plan = make_plan(transform, image.probe, self._limits)  # refuse before queueing
        key = self._key(image, transform)
        self._quarantine.check(image, key)

        def work(deliver: Callable[[Variant], None]) -> None:
            timer = _Timer()
            with self._locks.hold(key, patience_s=self._patience_s):
                timer.note("wait")
                found = self.stored(image, transform)  # another process may have made it meanwhile
                if found is not None:
                    deliver(found)
                    return
                body = self._rendered(image, plan, key)
                timer.note("render")
                log.debug("rendered %s", key)
                # Nobody waits for the disk; the key stays taken until the variant is stored.
                deliver(Variant(image=image, transform=transform, body=body, timings_ms=tuple(timer.laps)))
                self._keep(image, transform, key, body)

        return self._flights.start(key, work)

    def _rendered(self, image: Image, plan: Plan, key: str) -> bytes:
        originals = self._originals
        with originals.looking_again(image), originals.file(image) as path:
            try:
                return self._engine.render(str(path), plan).result()
            except RendererLost as lost:
                self._quarantine.remember(key, lost)
                with suppress(RuntimeError):  # closing
                    self._makers.submit(self._quarantine.test, image, originals.file, originals.forget)
                raise

    def _keep(self, image: Image, transform: Transform, key: str, body: bytes) -> None:
        """Store a variant that was made. It can be made again, so a store in trouble does not fail the request."""
        try:
            self._store.put(key, body, durable=False)
        except (StoreFailed, StoreFull) as error:
            log.warning("variant %s was made but not stored: %s", key, error)
            return
        stored = StoredVariant(
            stem=transform.stem, format=transform.format or "", size=len(body), created=datetime.now(UTC)
        )
        self._recorder.add(image.ident, stored)

    def _remove_deleted(self, ident: str) -> None:
        """Remove the blobs of an image that was deleted while a variant of it was made."""
        try:
            self._originals.remove_blobs(ident)
        except StoreFailed as error:
            log.warning("variants of %s, which is deleted, are still there: %s", ident, error)

    def _key(self, image: Image, transform: Transform) -> str:
        return self._keys.variant(image.ident, transform.stem, by_name(transform.format or "").extension)


class _Timer:
    """Notes how long the steps of one piece of work take."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        self.laps.append((name, (now - self._last) * 1000))
        self._last = now
