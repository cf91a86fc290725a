"""One renderer: a process with a deadline and a memory limit, and a pool and channels of its own."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from lazypix.engine.processes import follow_parent

T = TypeVar("T")

_REPORT_S = 2.0
"""How long pebble may take to say what became of the work of a process that ended; it looks ten times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererLimits:
    """What one renderer may take."""

    deadline_s: float = 15.0
    """Seconds for one image, from when a renderer takes it up."""
    memory_bytes: int = 2 * 1024**3
    """Address space of a renderer process; an image that needs more kills it. 0: no limit."""
    renders: int = 5000
    """Renders after which a renderer process is replaced by a fresh one."""
    start_s: float = 60.0
    """Seconds in which a renderer process must have started; one that has not is killed."""


class Renderer:
    """A process that does one piece of work at a time, until it ends; it is never started again.

    Whatever a killed process leaves behind - a locked mutex, half a message - is in channels that nobody else uses.
    Safe to use from many threads. Whoever starts one waits for its end, and clears it away.
    """

    def __init__(self, limits: RendererLimits, prepare: Callable[[], None] | None) -> None:
        self.has_started = False
        self._limits = limits
        self._lock = threading.Lock()
        self._begun = 0
        self._ended = False
        self._unfinished: set[Future[Any]] = set()
        self._spawning = _OneProcess()
        self._pool = ProcessPool(
            max_workers=1,
            initializer=_start,
            initargs=(limits.memory_bytes, os.getpid(), prepare),
            context=self._spawning,
        )

    def start(self) -> Future[None]:
        """Start the process; the future is done when it can work.

        The future raises `BrokenProcessPool` or `ProcessExpired` if it never can.

        Raises:
            OSError, RuntimeError: it cannot be started; there is nothing to clear away.
        """
        try:
            started = self._schedule(_load, ())  # a pool starts its process with its first task
        except BaseException:
            self._end_pool()
            raise
        started.add_done_callback(self._note_start)
        return started

    @property
    def is_spent(self) -> bool:
        """Whether it has begun as much as one process shall do."""
        return 0 < self._limits.renders <= self._begun

    def begin(self, function: Callable[..., T], args: tuple[object, ...]) -> Future[T]:
        """Begin a piece of work; the one before must be done.

        The future raises, besides what `function` does:
            TimeoutError: it took too long, and the process was killed.
            ProcessExpired: the process ended while it was at work.
            BrokenProcessPool: the process ended before.

        Raises:
            RuntimeError: the process has ended.
        """
        begun = self._schedule(function, args, self._limits.deadline_s)
        self._begun += 1
        return begun

    def kill(self) -> None:
        """End the process at once. If it is still starting: before its pool goes, of which it would complain."""
        self._spawning.kill()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the process has ended; return whether it has."""
        return self._spawning.wait(timeout_s)

    def clear_away(self) -> None:
        """Let go of all that belonged to the process, which has ended; what it had begun is done then, or fails."""
        with self._lock:
            self._ended = True
        wait(list(self._unfinished), timeout=_REPORT_S)
        self._end_pool()
        for forgotten in list(self._unfinished):  # what pebble is told at the moment when it gives up
            with suppress(InvalidStateError):  # done at this very moment
                forgotten.set_exception(BrokenProcessPool("the renderer has ended"))

    def _schedule(
        self, function: Callable[..., T], args: tuple[object, ...], deadline_s: float | None = None
    ) -> Future[T]:
        with self._lock:
            if self._ended:
                raise BrokenProcessPool("the renderer has ended")
            scheduled: Future[T] = self._pool.schedule(function, args=args, timeout=deadline_s)
            self._unfinished.add(scheduled)
        scheduled.add_done_callback(self._unfinished.discard)
        return scheduled

    def _note_start(self, started: Future[None]) -> None:
        self.has_started = started.exception() is None

    def _end_pool(self) -> None:
        self.kill()
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._spawning.forget()


def is_end(error: BaseException | None) -> bool:
    """Whether the work of a renderer failed in a way that it does not survive, or must not."""
    return isinstance(error, TimeoutError | ProcessExpired | BrokenProcessPool)


def killed_from_outside(error: BaseException) -> bool:
    """Whether the renderer died of no fault of the image's: an operator's or a service manager's signal."""
    return isinstance(error, ProcessExpired) and error.exitcode in (-signal.SIGTERM, -signal.SIGKILL)


class _OneProcess(SpawnContext):
    """Starts one process, once.

    Where a process ended, pebble starts another one on the same channels, in whatever state they were left. When that
    is refused, it fails what it has, and its pool is done.

    Spawned, never forked: a fork would copy locks that other threads hold at that moment.
    """

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        if self._process is not None:
            raise OSError("a renderer is one process")
        self._process = SpawnProcess(*args, **kwargs)
        return self._process

    def kill(self) -> None:
        process = self._process
        if process is not None and process.pid is not None:
            process.kill()

    def wait(self, timeout_s: float | None) -> bool:
        assert self._process is not None, "no process was started"
        return bool(connection.wait([self._process.sentinel], timeout_s))

    def forget(self) -> None:
        """Let go of the process, which has ended, and so of its descriptors: pebble's errors are cyclic garbage."""
        self._process = None


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
