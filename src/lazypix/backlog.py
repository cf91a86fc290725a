"""The queue in front of the renderers: a piece of work gets one of a few threads in its turn, and in that thread a
renderer in its turn. Whose turn it is, and what is let in at all, is `admission`'s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lazypix.admission import Piece, Shares, Turns
from lazypix.cost import rendering_s, verifying_s
from lazypix.engine import Engine
from lazypix.errors import Busy
from lazypix.formats import SNIFF_BYTES, sniff
from lazypix.plan import Limits, Plan, Probe

T = TypeVar("T")

_SPARE_HANDS = 14
"""Threads besides two a renderer: for work that waits for the store."""
_ASIDE = 64
"""Threads besides these, for work that waits for others who do the same."""


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
        self._threads = ThreadPoolExecutor(hands + _ASIDE, thread_name_prefix="lazypix-make")
        self._aside: set[Piece] = set()
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

    def step_aside(self, piece: Piece) -> bool:
        """Let others have the place of a piece that waits for somebody else's work; False: too many wait already.

        To be called in the work's own thread, which it keeps. Its room is not counted until it wants a renderer.
        """
        with self._lock:
            if piece in self._aside:
                return True
            if len(self._aside) >= _ASIDE:
                return False
            self._aside.add(piece)
            self._shares.leave(piece)
            self._hands.free(piece)
        self._advance(self._hands)
        return True

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
            if piece in self._aside:
                self._aside.remove(piece)
            else:
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
        with self._lock:
            if asked in self._aside:
                self._shares.enter(asked)
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
