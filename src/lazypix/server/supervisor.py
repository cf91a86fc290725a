"""Several server processes on one socket: started, replaced when they die, restarted one by one, and ended.

uvicorn's own supervisor forgets the exit codes of its workers, hears no second signal while it waits for them, and
keeps the socket open meanwhile, so that clients connect to nobody.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from lazypix.server.drain import RETIRE, Drain

log = logging.getLogger("lazypix.server")

HUNG_S = 60.0
"""A worker whose event loop has not moved for this long is killed, and replaced."""
_LOOK_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


@dataclass(slots=True, kw_only=True)
class Worker:
    """A server process, which sends a byte every second from when it serves."""

    process: SpawnProcess
    beats: Connection
    heard: float | None = None
    """When it was last heard of; None before it serves."""
    leaves: bool = False
    """It was told to end."""


class Supervisor:
    """Keeps `number` workers running until SIGTERM or SIGINT; `start` makes one that runs.

    SIGHUP replaces them one after the other: a new one serves before an old one drains. A second SIGTERM or SIGINT
    ends all at once.
    """

    def __init__(
        self,
        start: Callable[[], Worker],
        number: int,
        listening: socket.socket,
        drain: Drain,
        *,
        hung_s: float = HUNG_S,
    ) -> None:
        self._start = start
        self._number = number
        self._listening = listening
        self._drain = drain
        self._hung_s = hung_s
        self._workers: list[Worker] = []
        self._old: list[Worker] = []
        self._served = False
        self._not_before = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._signals: list[int] = []
        self._stopping_since: float | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Run until told to stop and all workers have ended; return the exit code."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        while self._stopping_since is None or self._workers:
            self._fill()
            wait([woken, *(w.process.sentinel for w in self._workers), *(w.beats for w in self._workers)], _LOOK_S)
            with suppress(BlockingIOError):
                os.read(woken, 512)
            self._hear()
            self._look_after()
            while self._signals:
                self._obey(self._signals.pop(0))
        return self._exit_code

    def _fill(self) -> None:
        """Start a worker where one is missing, or is to be replaced."""
        if self._stopping_since is not None or time.monotonic() < self._not_before:
            return
        missing = self._number - len(self._staying())
        settled = all(worker.heard is not None and not worker.leaves for worker in self._workers)
        if missing == 0 and self._old and settled:
            missing = 1
        for _ in range(missing):
            self._workers.append(self._start())

    def _staying(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.leaves]

    def _hear(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            try:
                while worker.beats.poll():
                    worker.beats.recv_bytes()
                    if worker.heard is None:
                        self._serves()
                    worker.heard = now
            except (EOFError, OSError):  # it has ended, as its sentinel says too
                continue

    def _serves(self) -> None:
        """A new worker serves: if it is one more than there should be, an old one goes."""
        self._served = True
        self._pause_s = _FIRST_PAUSE_S
        if self._stopping_since is None and self._old and len(self._staying()) > self._number:
            self._tell(self._old.pop(0), RETIRE)

    def _look_after(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.process.exitcode is not None:
                self._workers.remove(worker)
                self._ended(worker)
            elif worker.heard is not None and not worker.leaves and now - worker.heard > self._hung_s:
                log.error("worker %d does not move for %g seconds: killed", worker.process.pid, self._hung_s)
                worker.process.kill()
        if (
            self._stopping_since is not None
            and self._workers
            and now - self._stopping_since > self._drain.whole_s + 1
        ):
            log.error("stopping: %d workers did not end in time: killed", len(self._workers))
            self._kill_all()

    def _ended(self, worker: Worker) -> None:
        code = worker.process.exitcode
        worker.process.join()
        worker.process.close()
        worker.beats.close()
        if worker in self._old:
            self._old.remove(worker)
        if worker.leaves:
            if code and worker.heard is not None:
                log.error("a worker ended with exit code %d: it was cut", code)
                self._exit_code |= self._stopping_since is not None
            return
        if worker.heard is not None:
            log.error("a worker ended with exit code %s; another one is started", code)
        elif not self._served:
            log.error("a worker did not start; stopping")
            self._exit_code = 1
            self._stop()
        else:
            log.error(
                "a worker did not start; tried again in %g seconds, and restarting is called off", self._pause_s
            )
            self._old.clear()
            self._not_before = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP:
            if self._stopping_since is None:
                # Those that are still starting too: they may have begun with what was changed meanwhile.
                self._old = self._staying()
        elif self._stopping_since is None:
            self._stop()
        else:
            self._kill_all()

    def _stop(self) -> None:
        self._stopping_since = time.monotonic()
        self._old.clear()
        self._listening.close()  # before the workers close it: nobody may connect to nobody
        for worker in self._workers:
            self._tell(worker, signal.SIGTERM)

    def _kill_all(self) -> None:
        self._exit_code = 1
        for worker in self._workers:
            worker.process.kill()

    def _tell(self, worker: Worker, number: int) -> None:
        worker.leaves = True
        with suppress(ProcessLookupError):
            os.kill(worker.process.pid or 0, number)
