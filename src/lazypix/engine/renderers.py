"""The engine of server mode: renderer processes with a deadline, a memory limit and recycling."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired

from lazypix.engine.processes import bound_allocator_of_children
from lazypix.engine.renderer import Renderer, RendererLimits, is_end, killed_from_outside
from lazypix.errors import Busy, RendererLost, RenderTimeout
from lazypix.plan import Limits, Plan, Probe

__all__ = ["RendererEngine", "RendererLimits"]

T = TypeVar("T")
log = logging.getLogger("lazypix")

_STARTS = 3
"""After as many starts in vain, one after the other, a renderer is not counted on; it is still tried."""
_PAUSES_S = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Before a renderer is started again, by how often that failed in a row."""
_CLOSE_S = 15.0
"""Seconds in which everything ends that is killed; far longer than it takes."""


@dataclass(slots=True, kw_only=True)
class _Work(Generic[T]):
    """What a renderer shall do, and the future of whoever asked for it."""

    function: Callable[..., T]
    args: tuple[object, ...]
    done: Future[T] = field(default_factory=Future)
    tries_left: int = 2

    def succeed(self, result: T) -> None:
        with suppress(InvalidStateError):  # closing has answered it already
            self.done.set_result(result)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.done.set_exception(error)


class RendererEngine:
    """Runs the work in `processes` spawned processes, so that a bad image can only hurt its own request.

    Work waits here, in the order in which it came, until a renderer is free. A renderer that dies or passes the
    deadline is replaced. `prepare` runs in every renderer when it starts (picklable; for tests and instrumentation).
    """

    def __init__(
        self, processes: int, limits: RendererLimits | None = None, prepare: Callable[[], None] | None = None
    ) -> None:
        self._processes = processes
        self._limits = limits or RendererLimits()
        self._prepare = prepare
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._waiting: deque[_Work[Any]] = deque()
        self._unanswered: set[Future[Any]] = set()
        self._renderers: set[Renderer] = set()
        self._free: list[Renderer] = []
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._giver = threading.Thread(target=self._give, name="lazypix-renderers", daemon=True)
        self._failing: set[int] = set()
        self._keepers: list[threading.Thread] = []
        bound_allocator_of_children()
        self._giver.start()
        atexit.register(self.close)  # a keeper would replace the processes that pebble ends when the program does
        try:
            for place in range(processes):
                self._keep(place, self._start(place))
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        return self._processes

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        return self._submit(_inspect, path, limits)

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        return self._submit(_render, path, plan)

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            renderers = list(self._renderers)
        atexit.unregister(self.close)
        for renderer in renderers:
            renderer.kill()
        for asked in list(self._unanswered):
            with suppress(InvalidStateError):
                asked.set_exception(_closed())
        self._wake.put(False)
        deadline = time.monotonic() + _CLOSE_S
        for thread in [self._giver, *self._keepers]:
            if thread is not threading.current_thread():  # whoever closes may have been called with an answer
                thread.join(max(0.0, deadline - time.monotonic()))

    # --- renderers: each is replaced, for as long as the engine is open ---

    def _start(self, place: int) -> Renderer:
        renderer = Renderer(self._limits, self._prepare)
        started = renderer.start()
        with self._lock:
            self._renderers.add(renderer)
            too_late = self._closing.is_set()
        if too_late:
            renderer.kill()
        started.add_done_callback(partial(self._started, place, renderer))
        return renderer

    def _started(self, place: int, renderer: Renderer, started: Future[None]) -> None:
        if started.exception() is None:
            with self._lock:
                self._failing.discard(place)
            self._offer(renderer)

    def _keep(self, place: int, renderer: Renderer) -> None:
        keeper = threading.Thread(
            target=self._replace, args=(place, renderer), name=f"lazypix-renderer-{place}", daemon=True
        )
        keeper.start()
        self._keepers.append(keeper)

    def _replace(self, place: int, renderer: Renderer | None) -> None:
        """Put a new renderer in the place of one that ended, over and over. In a thread of its own."""
        failures = 0
        while True:
            try:
                failures = 0 if renderer is not None and self._see_off(renderer) else failures + 1
                if failures == _STARTS:
                    self._count_out(place)
                if self._closing.wait(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)]):
                    return
                renderer = self._start(place)
            except Exception:  # whatever it is, this place must not stay empty for ever
                log.warning("a renderer cannot be replaced, and is tried again later", exc_info=True)
                renderer = None

    def _see_off(self, renderer: Renderer) -> bool:
        """Wait for the end of a renderer and clear it away. Return whether it had ever come to work."""
        if not renderer.wait(self._limits.start_s) and not renderer.has_started:
            log.warning("a renderer did not start in %g seconds, and is killed", self._limits.start_s)
            renderer.kill()
        renderer.wait()
        with self._lock:
            self._renderers.discard(renderer)
            if renderer in self._free:
                self._free.remove(renderer)
        renderer.clear_away()
        return renderer.has_started

    def _count_out(self, place: int) -> None:
        """Note that no renderer starts in this place; where none does at all, nothing waits for one."""
        log.warning("a renderer could not be started %d times in a row; it is tried again later", _STARTS)
        with self._lock:
            self._failing.add(place)
            hopeless = list(self._waiting) if len(self._failing) == self._processes else []
            if hopeless:
                self._waiting.clear()
        for work in hopeless:
            work.fail(_unavailable("they do not start"))

    # --- work ---

    def _submit(self, function: Callable[..., T], *args: object) -> Future[T]:
        work = _Work(function=function, args=args)
        work.done.add_done_callback(self._unanswered.discard)
        self._unanswered.add(work.done)
        self._queue(work)
        return work.done

    def _queue(self, work: _Work[Any], *, ahead: bool = False) -> None:
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                (self._waiting.appendleft if ahead else self._waiting.append)(work)
        if refusal is not None:
            work.fail(refusal)
        else:
            self._wake.put(True)

    def _refusal(self) -> Busy | None:
        if self._closing.is_set():
            return _closed()
        if len(self._failing) == self._processes:
            return _unavailable("they do not start")
        return None

    def _offer(self, renderer: Renderer) -> None:
        """Have a renderer do what waits, now or later."""
        with self._lock:
            if renderer in self._renderers:  # else it has ended
                self._free.append(renderer)
        self._wake.put(True)

    def _give(self) -> None:
        """Give what waits to renderers that are free, whenever there may be something to do.

        In a thread of its own, where no signal is handled: Ctrl-C in a thread that asks comes between any two steps.
        And so that what is set off by an answer is not done deeper and deeper in the stack.
        """
        while self._wake.get():
            while pair := self._next():
                renderer, work = pair
                try:
                    self._begin(renderer, work)
                except RuntimeError as error:  # it has just ended, or its pool is broken
                    renderer.kill()
                    self._try_again(work, BrokenProcessPool(str(error)))

    def _next(self) -> tuple[Renderer, _Work[Any]] | None:
        with self._lock:
            while self._free and self._waiting:
                work = self._waiting.popleft()
                if not work.done.done():  # else whoever asked has given up
                    return self._free.pop(), work  # the one that worked last: its memory is warm
            return None

    def _begin(self, renderer: Renderer, work: _Work[Any]) -> None:
        begun = renderer.begin(work.function, work.args)
        begun.add_done_callback(partial(self._ended, renderer, work))

    def _ended(self, renderer: Renderer, work: _Work[T], begun: Future[T]) -> None:
        error = begun.exception()
        try:
            if error is None:
                work.succeed(begun.result())
            elif isinstance(error, BrokenProcessPool) or killed_from_outside(error):
                self._try_again(work, error)
            else:
                work.fail(self._translated(error))
        finally:  # last: it is this thread that reads its next answer, when those who asked are done with this one
            if is_end(error) or renderer.is_spent:
                renderer.kill()
            else:
                self._offer(renderer)

    def _try_again(self, work: _Work[Any], error: BaseException) -> None:
        """Have others try what failed by no fault of its own, a bounded number of times."""
        if work.tries_left <= 0:
            work.fail(self._translated(error))
            return
        work.tries_left -= 1
        self._queue(work, ahead=True)

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, TimeoutError):
            return RenderTimeout(f"The image took longer than {self._limits.deadline_s:g} seconds; it was given up")
        if isinstance(error, ProcessExpired):
            return RendererLost("The renderer died of this image (a crash, or more memory than is allowed)")
        if isinstance(error, MemoryError):
            return RendererLost("The image needs more memory than is allowed")
        if isinstance(error, BrokenProcessPool):
            return _unavailable(type(error).__name__)
        return error


def _closed() -> Busy:
    return Busy("The renderers are being stopped")


def _unavailable(why: str) -> Busy:
    return Busy(f"The renderers are not available ({why})")


def _inspect(path: str, limits: Limits) -> Probe:
    from lazypix.engine import render

    return render.inspect(path, limits)


def _render(path: str, plan: Plan) -> bytes:
    from lazypix.engine import render

    return render.render(path, plan)
