"""Variants: looked up in the store, or made once however many ask, and stored."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lazypix.catalog import Catalog, Image, StoredVariant
from lazypix.engine import Engine
from lazypix.errors import RendererLost
from lazypix.formats import by_name
from lazypix.lease.flight import Flight, SingleFlight
from lazypix.lease.locks import KeyLocks
from lazypix.originals.reading import Originals
from lazypix.plan import Limits, Plan, is_heavy, make_plan
from lazypix.quarantine import Quarantine
from lazypix.shelf import Shelf
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
        shelf: Shelf,
        engine: Engine,
        limits: Limits,
        originals: Originals,
        locks: KeyLocks,
        queue: int,
        patience_s: float,
    ) -> None:
        self._catalog = catalog
        self._shelf = shelf
        self._engine = engine
        self._limits = limits
        self._originals = originals
        self._locks = locks
        self._patience_s = patience_s
        self._makers = ThreadPoolExecutor(2 * (os.cpu_count() or 1) + 6, thread_name_prefix="lazypix-make")
        # What takes a renderer for long never takes all of them: small sizes and uploads find one.
        self._slow_makers = ThreadPoolExecutor(max(1, engine.workers - 1), thread_name_prefix="lazypix-make-slowly")
        self._flights: SingleFlight[Variant] = SingleFlight(max_keys=queue)
        self._quarantine = Quarantine(catalog, engine, limits)

    def stop_making(self) -> None:
        """Finish what is being made, and make nothing any more."""
        for makers in (self._makers, self._slow_makers):
            makers.shutdown(wait=True, cancel_futures=True)

    def stored(self, image: Image, transform: Transform) -> Variant | None:
        """Return a variant if it lies in the store; `transform` has its format decided."""
        body = self._shelf.find(image.ident, transform)
        return Variant(image=image, transform=transform, body=body) if body is not None else None

    def stored_file(self, image: Image, transform: Transform) -> tuple[Path, int] | None:
        """Return the file of a stored variant, and its size in bytes; None when the store has no files.

        Raises:
            BlobMissing: the variant is not stored.
        """
        return self._shelf.find_file(image.ident, transform)

    def recorded(self, image: Image) -> Sequence[StoredVariant]:
        """Return what is known of the variants of an image that are stored."""
        return self._catalog.variants.of(image.ident)

    def make(self, image: Image, transform: Transform) -> Flight[Variant]:
        """Begin to make a variant, or join in when it is being made. It is delivered first, and stored then.

        Raises:
            BadTransform, Quarantined, Busy: as `Library.variant`.
        """
        plan = make_plan(transform, image.probe, self._limits)  # refuse before queueing
        key = self._shelf.key(image.ident, transform)
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
                self._shelf.keep(image, transform, body)

        return self._flights.join(key, work, self._slow_makers if is_heavy(plan) else self._makers)

    def _rendered(self, image: Image, plan: Plan, key: str) -> bytes:
        originals = self._originals
        with originals.looking_again(image), originals.file(image) as path:
            try:
                return self._engine.render(str(path), plan).result()
            except RendererLost as lost:
                log.warning("%s was not made: %s", key, lost)
                self._quarantine.remember(key, lost)
                with suppress(RuntimeError):  # closing
                    self._makers.submit(self._quarantine.test, image, originals.file, originals.forget)
                raise


class _Timer:
    """Notes how long the steps of one piece of work take."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        self.laps.append((name, (now - self._last) * 1000))
        self._last = now
