"""Carries out the jobs of the table, without a broker: in the server process, or as a process of its own."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from lazypix.catalog.jobs import Job, JobRows
from lazypix.errors import LazypixError
from lazypix.jobs import Kind
from lazypix.jobs.carrier import Carrier

log = logging.getLogger("lazypix.jobs")


class JobRunner:
    """Takes jobs as long as it lives, in `workers` threads for each lane. Close it, or use it as a context manager.

    Jobs that this process adds are begun at once, those of others when they are looked for: about every `poll_s`.
    """

    def __init__(
        self,
        rows: JobRows,
        kinds: Sequence[Kind],
        *,
        workers: int = 2,
        poll_s: float = 2.0,
        lease_s: float = 60.0,
        stopping: threading.Event | None = None,
    ) -> None:
        """Begin to take jobs. `stopping` is set when it closes: kinds that take long look at it."""
        self._carrier = Carrier(rows, kinds, lease_s=lease_s)
        self._poll_s = poll_s
        self._stopping = stopping or threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._filling = threading.Lock()
        self._free = dict.fromkeys(self._carrier.lanes, workers)
        self._running: set[Future[None]] = set()
        self._rows = rows
        self._workers = ThreadPoolExecutor(max(1, workers * len(self._free)), thread_name_prefix="lazypix-job")
        self._before, rows.announce = rows.announce, lambda _: self._wake.set()
        self._taker = threading.Thread(target=self._take_on, name="lazypix-jobs", daemon=True)
        self._taker.start()

    def __enter__(self) -> JobRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, *, grace_s: float = 10.0) -> None:
        """Take no more; finish what is begun within `grace_s` seconds, and give back the rest for others to begin."""
        self._stopping.set()
        self._wake.set()
        self._taker.join()
        self._rows.announce = self._before
        self._workers.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            running = set(self._running)
        wait(running, timeout=grace_s)
        self._carrier.close()

    def finish(self) -> None:
        """Return when nothing waits and nothing runs any more; what is to be done later is not waited for."""
        while not self._stopping.is_set():
            with self._lock:
                running = set(self._running)
            wait(running)
            if not self._fill() and not running and not self._running:
                return

    def _take_on(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._carrier.schedule()
                self._fill()
            except LazypixError as error:  # the catalog may be back the next time
                log.warning("jobs could not be looked for: %s", error)
            except Exception:
                log.exception("jobs could not be looked for")
            self._wake.wait(self._poll_s * random.uniform(0.5, 1.5))  # noqa: S311  # jitter, not a secret

    def _fill(self) -> bool:
        """Begin as many jobs as there are free workers; return whether there were any."""
        begun = False
        with self._filling:
            while not self._stopping.is_set():
                with self._lock:
                    lanes = [lane for lane, free in self._free.items() if free > 0]
                job = self._carrier.take(lanes) if lanes else None
                if job is None or not self._begin(job):
                    break
                begun = True
        return begun

    def _begin(self, job: Job) -> bool:
        lane = self._carrier.kinds[job.kind].lane
        try:
            with self._lock:
                task = self._workers.submit(self._carrier.carry_out, job)
                self._free[lane] -= 1
                self._running.add(task)
        except RuntimeError:  # the process ends, and nobody closed us: others shall have the job at once
            self._stopping.set()
            self._carrier.refuse(job)
            return False
        task.add_done_callback(lambda ended: self._end(lane, ended))
        return True

    def _end(self, lane: str, task: Future[None]) -> None:
        with self._lock:
            self._free[lane] += 1
            self._running.discard(task)
        self._wake.set()
