"""One attempt of a job, and what is recorded of it; whoever has the job carried out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from lazypix.catalog.jobs import Job, JobRows
from lazypix.errors import LazypixError
from lazypix.jobs import Interrupted, Kind
from lazypix.jobs.rests import Rests

log = logging.getLogger("lazypix.jobs")

_UNAVAILABLE = 503
_SCHEDULE_EVERY_S = 600.0  # somebody may have dropped it by hand


class Carrier:
    """Takes jobs and carries them out, keeping them taken meanwhile. Safe to use from many threads; close it."""

    def __init__(self, rows: JobRows, kinds: Sequence[Kind], *, lease_s: float = 60.0) -> None:
        """Carry out these kinds of jobs; one whose process is lost is taken by another after `lease_s` seconds."""
        self.rows = rows
        self.kinds = {kind.name: kind for kind in kinds}
        self._lease_s = lease_s
        self._rests = Rests()
        self._lock = threading.Lock()
        self._running: dict[str, Job] = {}
        self._schedule_at = 0.0
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def lanes(self) -> list[str]:
        """The lanes of its kinds."""
        return list(dict.fromkeys(kind.lane for kind in self.kinds.values()))

    def take(self, lanes: Collection[str]) -> Job | None:
        """Take the job whose turn it is in these lanes; it is to be carried out, or given back."""
        kinds = [k.name for k in self.kinds.values() if k.lane in lanes and not self._rests.is_resting(k.name)]
        job = self.rows.take(kinds, lease_s=self._lease_s) if kinds else None
        if job is not None:
            self._keep(job)
        return job

    def carry_out(self, job: Job) -> None:
        """Carry out a job that was taken, and record how it ended. Raises nothing."""
        try:
            self._attempt(self.kinds[job.kind], job)
        except LazypixError as error:  # it is not recorded: when its time is over the job is taken again
            log.warning("how job %s (%s) ended was not recorded: %s", job.id, job.kind, error)
        except Exception:
            log.exception("how job %s (%s) ended was not recorded", job.id, job.kind)
        finally:
            with self._lock:
                self._running.pop(job.id, None)

    def schedule(self) -> None:
        """Make sure that what is done again and again will be, by whoever takes it; may be called often."""
        if time.monotonic() < self._schedule_at:
            return
        for kind in self.kinds.values():
            if kind.every_s is not None:
                self.rows.ensure(kind.name, in_s=kind.every_s)
        self._schedule_at = time.monotonic() + _SCHEDULE_EVERY_S

    def give_back(self) -> None:
        """Give back what is not finished, for others to begin anew at once."""
        with self._lock:
            left, self._running = list(self._running.values()), {}
        for job in left:
            log.warning("job %s (%s) is not finished, and given back", job.id, job.kind)
            with suppress(LazypixError):  # then its time runs out
                self.rows.give_back(job)

    def refuse(self, job: Job) -> None:
        """Give back a job that was taken and is not begun, for others to begin at once."""
        with self._lock:
            self._running.pop(job.id, None)
        with suppress(LazypixError):  # then its time runs out
            self.rows.give_back(job)

    def close(self) -> None:
        """Stop keeping jobs; what is taken still is given back first."""
        self.give_back()
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()

    # --- one attempt -------------------------------------------------------------------------------------------

    def _attempt(self, kind: Kind, job: Job) -> None:
        if job.attempts > kind.attempts and kind.every_s is None:
            self._bury(job, f"It was begun {job.attempts - 1} times, and whoever did was lost each time")
            return
        try:
            kind.carry_out(job)
        except Interrupted:
            self.rows.give_back(job)
        except LazypixError as error:
            self._note(kind, answered=error.status != _UNAVAILABLE)
            self._failed(kind, job, str(error), for_ever=error.status < 500)
        except Exception as error:
            log.exception("job %s (%s) failed", job.id, job.kind)
            self._failed(kind, job, f"{type(error).__name__}: {error}", for_ever=False)
        else:
            self._note(kind, answered=True)
            self._succeeded(kind, job)

    def _note(self, kind: Kind, *, answered: bool) -> None:
        (self._rests.answered if answered else self._rests.failed)(kind.name)

    def _succeeded(self, kind: Kind, job: Job) -> None:
        recorded = self.rows.done(job) if kind.every_s is None else self.rows.repeat(job, in_s=kind.every_s)
        if not recorded:
            log.warning("job %s (%s) took too long, and was given to another meanwhile", job.id, job.kind)

    def _failed(self, kind: Kind, job: Job, error: str, *, for_ever: bool) -> None:
        if kind.every_s is not None:
            log.warning("%s failed, and will be tried again: %s", job.kind, error)
            self.rows.repeat(job, in_s=kind.every_s, error=error)
        elif for_ever or job.attempts >= kind.attempts:
            self._bury(job, error)
        else:
            log.info("job %s (%s) failed, and is tried again: %s", job.id, job.kind, error)
            self.rows.failed(job, error, again_in_s=kind.wait_s(job.attempts))

    def _bury(self, job: Job, error: str) -> None:
        log.error("job %s (%s of %s) is given up: %s", job.id, job.kind, job.ident, error)
        self.rows.failed(job, error, again_in_s=None)

    # --- keeping -----------------------------------------------------------------------------------------------

    def _keep(self, job: Job) -> None:
        with self._lock:
            self._running[job.id] = job
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._renew_all, name="lazypix-jobs-keeper", daemon=True)
                self._keeper.start()

    def _renew_all(self) -> None:
        while not self._closing.wait(self._lease_s / 3):
            with self._lock:
                running = list(self._running.values())
            for job in running:
                try:
                    self.rows.renew(job, lease_s=self._lease_s)
                except LazypixError as error:  # the catalog may be back before the time is over
                    log.warning("job %s (%s) could not be renewed: %s", job.id, job.kind, error)
