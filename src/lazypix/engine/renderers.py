"""The engine of server mode: renderer processes with a deadline, a memory limit and recycling."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

from lazypix.engine.processes import bound_allocator_of_children, follow_parent
from lazypix.errors import Busy, RendererLost, RenderTimeout
from lazypix.plan import Limits, Plan, Probe

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererLimits:
    """What one renderer may take."""

    deadline_s: float = 15.0
    """Seconds for one image, from when a renderer takes it up."""
    memory_bytes: int = 2 * 1024**3
    """Address space of a renderer process; an image that needs more kills it. 0: no limit."""
    renders: int = 5000
    """Renders after which a renderer process is replaced by a fresh one."""


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

    A process that dies or passes the deadline is replaced. `prepare` runs in every renderer when it starts
    (picklable; for tests and instrumentation).
    """

    def __init__(
        self, processes: int, limits: RendererLimits | None = None, prepare: Callable[[], None] | None = None
    ) -> None:
        self._processes = processes
        self._limits = limits or RendererLimits()
        self._prepare = prepare
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: set[Future[Any]] = set()
        bound_allocator_of_children()
        self._pool = self._new_pool()
        self._pool.schedule(_load)  # a pool starts its processes with its first task: now, not for the first image

    @property
    def workers(self) -> int:
        return self._processes

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        return self._submit(_inspect, path, limits)

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        return self._submit(_render, path, plan)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        _discard(self._pool)
        for waiting in list(self._waiting):  # pebble forgets what it has not begun
            with suppress(InvalidStateError):
                waiting.set_exception(Busy("The renderers are being stopped"))

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._processes,
            max_tasks=self._limits.renders,
            initializer=_start,
            initargs=(self._limits.memory_bytes, os.getpid(), self._prepare),
            # Spawned, never forked: a fork would copy locks that other threads hold at that moment.
            context=multiprocessing.get_context("spawn"),
        )

    def _submit(self, function: Callable[..., T], *args: object) -> Future[T]:
        work = _Work(function=function, args=args)
        with self._lock:
            self._waiting.add(work.done)
        work.done.add_done_callback(self._waiting.discard)
        self._try(work)
        return work.done

    def _try(self, work: _Work[T]) -> None:
        """Schedule the work; when the whole pool broke under it, make a new pool and try again."""
        pool = self._pool
        try:
            scheduled = pool.schedule(work.function, args=work.args, timeout=self._limits.deadline_s)
        except RuntimeError as error:  # the pool is broken or closed
            self._try_anew(work, pool, error)
            return

        def ended(finished: Future[T]) -> None:
            error = finished.exception() if not finished.cancelled() else RuntimeError("cancelled")
            if error is None:
                work.succeed(finished.result())
            elif _killed_from_outside(error) and work.tries_left > 0:
                work.tries_left -= 1
                self._try(work)
            elif isinstance(error, BrokenProcessPool):
                self._try_anew(work, pool, error)
            else:
                work.fail(self._translated(error))

        scheduled.add_done_callback(ended)
        # Whoever gives up takes the work out of the queue; one that is being done goes on until its deadline.
        work.done.add_done_callback(lambda done: _drop(scheduled) if done.cancelled() else None)

    def _try_anew(self, work: _Work[T], broken: ProcessPool, error: BaseException) -> None:
        """Try again with a new pool in place of a broken one."""
        with self._lock:
            hopeless = self._closed or work.tries_left <= 0
            if self._pool is broken and not hopeless:
                self._pool = self._new_pool()
                threading.Thread(target=_discard, args=(broken,), daemon=True).start()
        if hopeless:
            work.fail(Busy(f"The renderers are not available ({type(error).__name__})"))
            return
        work.tries_left -= 1
        self._try(work)

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, TimeoutError):
            return RenderTimeout(f"The image took longer than {self._limits.deadline_s:g} seconds; it was given up")
        if isinstance(error, ProcessExpired):
            return RendererLost("The renderer died of this image (a crash, or more memory than is allowed)")
        if isinstance(error, MemoryError):
            return RendererLost("The image needs more memory than is allowed")
        return error


def _drop(scheduled: Future[Any]) -> None:
    if not scheduled.running():
        scheduled.cancel()


def _killed_from_outside(error: BaseException) -> bool:
    """Whether the renderer died of no fault of the image's: an operator's or a service manager's signal."""
    return isinstance(error, ProcessExpired) and error.exitcode in (-signal.SIGTERM, -signal.SIGKILL)


def _start(memory_bytes: int, parent: int, prepare: Callable[[], None] | None) -> None:
    """Prepare a fresh renderer process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # die at once, also inside of a codec
    threading.Thread(target=follow_parent, args=(parent,), daemon=True).start()
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    _load()
    if prepare is not None:
        prepare()


def _load() -> None:
    import lazypix.engine.render  # noqa: F401  # libvips


def _inspect(path: str, limits: Limits) -> Probe:
    from lazypix.engine import render

    return render.inspect(path, limits)


def _render(path: str, plan: Plan) -> bytes:
    from lazypix.engine import render

    return render.render(path, plan)


def _discard(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()
