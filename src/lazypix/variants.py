"""Variants: looked up in the store, or made once however many ask, and stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lazypix.admission import Piece
from lazypix.backlog import Backlog
from lazypix.catalog import Catalog, Image, StoredVariant
from lazypix.cost import rendering_s
from lazypix.errors import Busy, RendererLost
from lazypix.formats import by_name
from lazypix.lease.flight import Flight, SingleFlight, Work
from lazypix.lease.holding import FREE, Holder, Turn
from lazypix.lease.locks import KeyLocks
from lazypix.originals.reading import Originals
from lazypix.plan import Limits, Plan, make_plan
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
    turn: Turn = field(default=FREE, repr=False, compare=False)
    """Whether it may be given to other machines: only while its making `is_ours`."""

    @property
    def media_type(self) -> str:
        """The MIME type, such as `image/webp`."""
        return by_name(self.transform.format or "").mime


class Variants:
    """The variants of a library, stored and in the making. Safe to use from many threads.

    `backlog` bounds the variants being made at once; `patience_s` how long one is waited for that another process
    makes. With a `holder` of leases, those of other machines are waited for too.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        shelf: Shelf,
        backlog: Backlog,
        limits: Limits,
        originals: Originals,
        locks: KeyLocks,
        holder: Holder | None,
        patience_s: float,
    ) -> None:
        self._catalog = catalog
        self._shelf = shelf
        self._backlog = backlog
        self._limits = limits
        self._originals = originals
        self._locks = locks
        self._holder = holder
        self._patience_s = patience_s
        self._flights: SingleFlight[Variant] = SingleFlight()
        self._is_stopping = False
        self._quarantine = Quarantine(catalog, backlog, limits)

    def stop_making(self) -> None:
        """Finish what is being made, and make nothing any more; what others make is not waited for."""
        self._is_stopping = True
        if self._holder is not None:
            self._holder.stop_waiting()
        self._backlog.stop()

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

    def make(
        self, image: Image, transform: Transform, *, background: bool = False, keeps: bool = True
    ) -> Flight[Variant]:
        """Begin to make a variant, or join in when it is being made. It is delivered first, and stored then.

        In the `background` it holds up what somebody waits for by one render at most, and is refused sooner. One that
        nobody `keeps` is only delivered: nothing is written, no other process is waited for.

        Raises:
            BadTransform, Quarantined, Busy: as `Library.variant`.
        """
        plan = make_plan(transform, image.probe, self._limits)  # refuse before queueing
        key = self._shelf.key(image.ident, transform)
        self._quarantine.check(image, key)
        piece = Piece(seconds=rendering_s(plan), background=background)
        timer = _Timer()

        def work(deliver: Callable[[Variant], None]) -> None:
            if not keeps:
                body = self._rendered(image, plan, key, piece)
                deliver(Variant(image=image, transform=transform, body=body, timings_ms=timer.laps(piece.began)))
                return
            with self._turn(image, transform, key, may_wait=partial(self._may_wait, piece)) as turn:
                found = self.stored(image, transform)  # another process may have made it meanwhile
                if found is not None:
                    deliver(found)
                    return
                log.debug("rendering %s", key)
                body = self._rendered(image, plan, key, piece)
                log.debug("rendered %s", key)
                laps = timer.laps(piece.began)
                # Nobody waits for the disk; the key stays taken until the variant is stored.
                deliver(Variant(image=image, transform=transform, body=body, timings_ms=laps, turn=turn))
                self._shelf.keep(image, transform, body, turn)

        place = _Place(self._backlog, piece)
        flight = self._flights.join(key if keeps else f"{key} not kept", partial(place.carry_out, work), place)
        if not background:
            flight.hurry()
        return flight

    @contextmanager
    def _turn(self, image: Image, transform: Transform, key: str, *, may_wait: Callable[[], bool]) -> Iterator[Turn]:
        """Wait until no other process of this machine, and then no other machine, makes the variant.

        Who waits holds up nobody: the place in the backlog goes to others. Beyond a number of those who do so it is
        not waited for, and the work done twice: better than renderers that idle.
        So of the processes of a machine one asks for the lease, and the others wait at the kernel's expense.
        """
        deadline = time.monotonic() + self._patience_s
        with self._locks.hold(key, patience_s=self._patience_s, may_wait=may_wait):
            if self._holder is None:
                yield FREE
                return
            rest_s = max(0.0, deadline - time.monotonic())
            with self._holder.hold(
                key,
                patience_s=rest_s,
                is_done=lambda: self._shelf.find_key(image.ident, transform) is not None,
                may_wait=may_wait,
            ) as turn:
                yield turn

    def _may_wait(self, piece: Piece) -> bool:
        if self._is_stopping:
            raise Busy("Shutting down; ask again in a moment")
        return self._backlog.step_aside(piece)

    def _rendered(self, image: Image, plan: Plan, key: str, piece: Piece) -> bytes:
        originals = self._originals
        with originals.looking_again(image), originals.file(image) as path:
            try:
                return self._backlog.render(str(path), plan, piece).result()
            except RendererLost as lost:
                log.warning("%s was not made: %s", key, lost)
                self._quarantine.remember(key, lost)
                test = partial(self._quarantine.test, image, originals.file, originals.forget)
                with suppress(RuntimeError):  # closing
                    self._backlog.submit(Piece(seconds=0.0, verifying=True), test)
                raise


class _Place:
    """The place of one variant in the backlog: a queue for its flight."""

    def __init__(self, backlog: Backlog, piece: Piece) -> None:
        self._backlog = backlog
        self._piece = piece

    def submit(self, work: Callable[[], None], /) -> Future[None]:
        return self._backlog.submit(self._piece, work)

    def hurry(self) -> None:
        self._backlog.hurry(self._piece)

    def carry_out(self, work: Work[Variant], deliver: Callable[[Variant], None]) -> None:
        """Do the work; its place is free for others before anybody hears of the end."""

        def leave_first(variant: Variant) -> None:
            self._backlog.leave(self._piece)
            deliver(variant)

        try:
            work(leave_first)
        finally:
            self._backlog.leave(self._piece)


class _Timer:
    """Tells how long the steps of one piece of work took."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def laps(self, rendering: float | None) -> tuple[tuple[str, float], ...]:
        """Return the waiting (for a place, a lock, the original, a renderer) and the rendering, milliseconds."""
        now = time.perf_counter()
        began = now if rendering is None else rendering
        return ("wait", (began - self._begun) * 1000), ("render", (now - began) * 1000)


def natural_format(image: Image, transform: Transform) -> str:
    """Return the format of a variant for which none was asked: the original's, or PNG or JPEG by its alpha."""
    own = by_name(image.format)
    if own.saves and (own.lossless or not transform.lossless):
        return own.name
    return "png" if image.probe.alpha or transform.lossless else "jpg"
