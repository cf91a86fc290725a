"""The queue in front of the renderers: what is let in, and who goes next.

`Shares` bounds what waits, by number and by estimated seconds; `Turns` decides who gets a free slot. Both are plain
accounting. `Backlog` puts them in front of an engine: a piece of work gets one of a few threads in its turn, and
in that thread a renderer in its turn.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from lazypix.cost import HEAVY_S, rendering_s, verifying_s
from lazypix.engine import Engine
from lazypix.errors import Busy
from lazypix.formats import SNIFF_BYTES, sniff
from lazypix.plan import Limits, Plan, Probe

T = TypeVar("T")
Kind = Literal["small", "heavy", "background", "verifying"]

_SHARES: dict[Kind, float] = {"small": 1.0, "heavy": 0.75, "background": 0.5, "verifying": 1.0}
_SPARE_HANDS = 14
"""Threads besides two a renderer: for work that waits for a lock, or for the store."""
_LONGEST_RETRY_S = 20.0
_LONGEST_SPREAD_S = 2.0
_ROUNDING_S = 1e-9


@dataclass(slots=True, kw_only=True, eq=False)
class Piece:
    """One piece of work for a renderer."""

    seconds: float
    """How long a renderer will take for it; estimated."""
    background: bool = False
    """Nobody waits for it: it goes behind everything else."""
    verifying: bool = False
    """It is an upload's; their number is bounded where they are received."""
    began: float | None = None
    """When its renderer began (`time.perf_counter`)."""

    @property
    def kind(self) -> Kind:
        """In which of the lines it waits."""
        if self.background:
            return "background"
        if self.verifying:
            return "verifying"
        return "heavy" if self.seconds > HEAVY_S else "small"

    @property
    def can_wait(self) -> bool:
        """Whether others should find a free slot beside it."""
        return self.background or self.seconds > HEAVY_S


class Turns:
    """Slots, and who waits for one. Not thread-safe.

    Small work, heavy work and uploads take turns, so that each gets an equal share of the seconds for as long as it
    has work (start-time fair queueing); work in the background goes when none of them can. Heavy work has at most
    `each` slots, work in the background too, and both `together`: the others are for what is done soon.
    """

    def __init__(self, slots: int, *, each: int, together: int) -> None:
        self._slots = slots
        self._each = each
        self._together = together
        self._waiting: dict[Piece, Callable[[], None]] = {}
        self._taken: dict[Piece, tuple[bool, bool]] = {}
        self._tags: dict[Kind, float] = {}
        self._clock = 0.0

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return len(self._taken)

    @property
    def waiting(self) -> list[Piece]:
        """Who waits, the longest first."""
        return list(self._waiting)

    def wait(self, piece: Piece, go: Callable[[], None]) -> None:
        """Have a piece wait for a slot; `go` is what `take` returns then."""
        self._waiting[piece] = go

    def drop(self, piece: Piece) -> bool:
        """Let a piece wait no longer; False when it did not wait (any more)."""
        return self._waiting.pop(piece, None) is not None

    def take(self) -> Callable[[], None] | None:
        """Give a free slot to whose turn it is; None when there is nobody, or no slot for those who wait."""
        piece = self._next()
        if piece is None:
            return None
        start = self._start(piece.kind)
        if piece.kind != "background":
            self._clock = start
        self._tags[piece.kind] = start + piece.seconds
        self._taken[piece] = (piece.can_wait, piece.background)
        return self._waiting.pop(piece)

    def free(self, piece: Piece) -> None:
        """Give a slot back."""
        del self._taken[piece]

    def _next(self) -> Piece | None:
        if len(self._taken) >= self._slots:
            return None
        first: dict[Kind, Piece] = {}
        for piece in self._waiting:
            if piece.kind not in first and self._may_go(piece):
                first[piece.kind] = piece
        background = first.pop("background", None)
        return first[min(first, key=self._start)] if first else background

    def _may_go(self, piece: Piece) -> bool:
        if not piece.can_wait:
            return True
        like_it = sum(can_wait and background == piece.background for can_wait, background in self._taken.values())
        return like_it < self._each and sum(can_wait for can_wait, _ in self._taken.values()) < self._together

    def _start(self, kind: Kind) -> float:
        return max(self._tags.get(kind, 0.0), self._clock)


class Shares:
    """What may wait, by number and by seconds. Not thread-safe.

    Heavy work has three quarters of both at most, and work in the background is taken only while half of both is
    free. One piece counts for its share at most: when nothing else of its kind is there, the largest is taken.
    Uploads are counted, and never refused here.
    """

    def __init__(self, *, places: int, seconds: float, renderers: int) -> None:
        self._places = places
        self._seconds = seconds
        self._renderers = renderers
        self._inside: dict[Piece, tuple[Kind, float]] = {}

    def admit(self, piece: Piece) -> None:
        """Let a piece in.

        Raises:
            Busy: there is no room; says of what, and when to ask again.
        """
        kind, share = piece.kind, _SHARES[piece.kind]
        counted = min(piece.seconds, share * self._seconds)
        if kind == "heavy":
            self._check(share, counted, "heavy ", "heavy")
        if kind != "verifying":
            self._check(share if kind == "background" else 1.0, counted, "")
        self._inside[piece] = (kind, counted)

    def leave(self, piece: Piece) -> None:
        """Give the room of a piece back; a second time does nothing."""
        self._inside.pop(piece, None)

    def count(self, *kinds: Kind) -> int:
        """Return how many pieces are inside; of all kinds but uploads, unless some are named."""
        return sum(kind in kinds if kinds else kind != "verifying" for kind, _ in self._inside.values())

    def seconds(self, *kinds: Kind) -> float:
        """Return how long a renderer alone would take for them; as `count`."""
        return sum(s for kind, s in self._inside.values() if (kind in kinds if kinds else kind != "verifying"))

    def retry_after_s(self, *, heavy: bool = False, dice: random.Random | None = None) -> int:
        """Return after how many seconds to ask again: when most of what is ahead is done, spread a little."""
        if heavy:
            ahead_s = self.seconds("heavy") / max(1, self._renderers - 1)
        else:
            ahead_s = (self.seconds() + self.seconds("verifying")) / self._renderers
        roll = (dice or random).uniform  # not all who are refused now shall be back in the same second
        spread_s = min(ahead_s, _LONGEST_RETRY_S) * roll(1.0, 1.5) + roll(0.0, _LONGEST_SPREAD_S)
        return max(1, math.ceil(spread_s))

    def _check(self, share: float, counted: float, what: str, *kinds: Kind) -> None:
        places = max(1, math.floor(share * self._places))
        if self.count(*kinds) >= places:
            raise self._busy(f"{places} {what}images are being made, as many as are let in", heavy=bool(kinds))
        if self.seconds(*kinds) + counted > share * self._seconds + _ROUNDING_S:
            each_s = share * self._seconds / self._renderers
            raise self._busy(f"The renderers have {what}work for {each_s:.3g} seconds", heavy=bool(kinds))

    def _busy(self, text: str, *, heavy: bool) -> Busy:
        after_s = self.retry_after_s(heavy=heavy)
        return Busy(f"{text}; ask again in {after_s} seconds", retry_after_s=after_s)


class Backlog:
    """An engine with a queue in front. Safe to use from many threads.

    At most `places` variants, and `seconds` of work for each renderer, are under way or waiting. Closing it closes
    the engine.
    """

    def __init__(self, engine: Engine, *, places: int, seconds: float) -> None:
        self._engine = engine
        workers = engine.workers
        hands = 2 * workers + _SPARE_HANDS
        self._lock = threading.Lock()
        self._stopped = self._closed = False
        self._shares = Shares(places=places, seconds=seconds * workers, renderers=workers)
        # Small work finds a renderer that no heavy work has. That waits where it can be dropped: without a thread.
        beside = max(1, workers - 1)
        self._renderers = Turns(workers, each=beside, together=beside)
        self._hands = Turns(hands, each=beside, together=2 * beside)
        self._threads = ThreadPoolExecutor(hands, thread_name_prefix="lazypix-make")
        self._tasks: set[Future[None]] = set()
        self._asked: set[Future[Any]] = set()

    @property
    def workers(self) -> int:
        """How many images are worked on at once."""
        return self._engine.workers

    def retry_after_s(self) -> int:
        """Return after how many seconds one who is refused should ask again."""
        with self._lock:
            return self._shares.retry_after_s()

    def load(self) -> tuple[int, float]:
        """Return how many variants are under way or waiting, and how long a renderer alone would take for them."""
        with self._lock:
            return self._shares.count(), self._shares.seconds()

    # --- threads -----------------------------------------------------------------------------------------------

    def submit(self, piece: Piece, work: Callable[[], None]) -> Future[None]:
        """Have work done in a thread, in its turn. Never blocks; until it has begun, it can be cancelled.

        Raises:
            Busy: there is no room for it.
            RuntimeError: it was stopped.
        """
        task: Future[None] = Future()
        with self._lock:
            if self._stopped:
                raise RuntimeError("the backlog is stopped")
            self._shares.admit(piece)
            self._tasks.add(task)
            self._hands.wait(piece, partial(self._begin, piece, task, work))
        task.add_done_callback(lambda done: self._called_off(piece) if done.cancelled() else None)
        task.add_done_callback(self._tasks.discard)
        self._advance(self._hands)
        return task

    def leave(self, piece: Piece) -> None:
        """Give the room of a piece back before its work has ended; a second time does nothing."""
        with self._lock:
            self._shares.leave(piece)

    def hurry(self, piece: Piece) -> None:
        """Take a piece out of the background: somebody waits for it now."""
        if not piece.background:
            return
        with self._lock:
            piece.background = False
        self._advance(self._hands)
        self._advance(self._renderers)

    def stop(self) -> None:
        """Finish what has begun, and begin nothing any more; what waits for a thread is cancelled."""
        with self._lock:
            self._stopped = True
            tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._threads.shutdown(wait=True)

    def _begin(self, piece: Piece, task: Future[None], work: Callable[[], None]) -> None:
        try:
            self._threads.submit(self._carry_out, piece, task, work)
        except RuntimeError:  # stopped at this very moment
            task.cancel()
            self._ended(piece)

    def _carry_out(self, piece: Piece, task: Future[None], work: Callable[[], None]) -> None:
        error: BaseException | None = None
        begun = task.set_running_or_notify_cancel()
        try:
            if begun:
                work()
        except BaseException as caught:  # noqa: BLE001  # handed to whoever asked
            error = caught
        self._ended(piece)
        if begun and error is None:
            task.set_result(None)
        elif begun:
            task.set_exception(error)

    def _ended(self, piece: Piece) -> None:
        with self._lock:
            self._shares.leave(piece)
            self._hands.free(piece)
        self._advance(self._hands)

    def _called_off(self, piece: Piece) -> None:
        with self._lock:
            self._hands.drop(piece)
            self._shares.leave(piece)

    # --- renderers ---------------------------------------------------------------------------------------------

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        """As `Engine.inspect`; in turn with variants, and counted in what is ahead of them."""
        piece = Piece(seconds=_verifying_s(path), verifying=True)
        with self._lock:
            self._shares.admit(piece)
        return self._ask(piece, partial(self._engine.inspect, path, limits))

    def render(self, path: str, plan: Plan, piece: Piece | None = None) -> Future[bytes]:
        """As `Engine.render`; for a `piece` that was let in, or at once in the line of small or heavy work."""
        asked = piece or Piece(seconds=rendering_s(plan))
        return self._ask(asked, partial(self._engine.render, path, plan))

    def close(self) -> None:
        """Close the engine; what waits for a renderer fails."""
        with self._lock:
            self._closed = True
            asked = list(self._asked)
        for future in asked:
            with suppress(InvalidStateError):
                future.set_exception(_stopping())
        self._engine.close()

    def _ask(self, piece: Piece, begin: Callable[[], Future[T]]) -> Future[T]:
        """Have an engine begin when it is the piece's turn. Who cancels before, gives its turn up."""
        asked: Future[T] = Future()
        with self._lock:
            if self._closed:
                self._shares.leave(piece)
                asked.set_exception(_stopping())
                return asked
            self._asked.add(asked)
            self._renderers.wait(piece, partial(self._start, piece, asked, begin))
        asked.add_done_callback(self._asked.discard)
        asked.add_done_callback(lambda _: self._given_up(piece))
        self._advance(self._renderers)
        return asked

    def _start(self, piece: Piece, asked: Future[T], begin: Callable[[], Future[T]]) -> None:
        piece.began = time.perf_counter()
        begin().add_done_callback(partial(self._finished, piece, asked))

    def _finished(self, piece: Piece, asked: Future[T], done: Future[T]) -> None:
        with self._lock:
            self._renderers.free(piece)
            if piece.verifying:
                self._shares.leave(piece)
        error = _stopping() if done.cancelled() else done.exception()
        with suppress(InvalidStateError):  # given up, or closing has answered it already
            if error is None:
                asked.set_result(done.result())
            else:
                asked.set_exception(error)
        self._advance(self._renderers)

    def _given_up(self, piece: Piece) -> None:
        with self._lock:
            if self._renderers.drop(piece) and piece.verifying:
                self._shares.leave(piece)

    def _advance(self, turns: Turns) -> None:
        while True:
            with self._lock:
                go = turns.take()
            if go is None:
                return
            go()


def _stopping() -> Busy:
    return Busy("The renderers are being stopped; ask again in a moment")


def _verifying_s(path: str) -> float:
    try:
        with Path(path).open("rb") as file:
            found, size = sniff(file.read(SNIFF_BYTES)), os.fstat(file.fileno()).st_size
    except OSError:  # whoever opens it next will say so
        return 0.0
    return verifying_s(found.name, size) if found is not None and found.loads else 0.0
