"""The Celery application: `celery -A lazypix.celery worker`, and `beat`; settings as for the server.

Everything is opened in the process that works, when the first message comes: nothing is shared by a fork.
"""

from __future__ import annotations

import logging
import multiprocessing.process
import os
import re
import threading
from contextlib import ExitStack, closing
from typing import Any

from lazypix.catalog.jobs import JobRows
from lazypix.composition import make_kinds, make_renderers, open_listening
from lazypix.errors import LazypixError, SettingsError
from lazypix.jobs.carrier import Carrier
from lazypix.jobs.messages import JOB, RESEND, Sender, make_app, signals
from lazypix.library import Library
from lazypix.settings import Settings, load

log = logging.getLogger("lazypix.jobs")

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_STARTED_AS, _STARTED = os.getpid(), multiprocessing.process.current_process()


class Work:
    """What one worker process has opened."""

    def __init__(self, settings: Settings) -> None:
        """Open the library and all that carrying out jobs needs."""
        own = settings.model_copy(update={"workers": 1})
        if os.getpid() != _STARTED_AS:
            own = own.model_copy(update={"renderers": 1})  # a forked process carries out one job at a time
            _have_own_processes()
        self._stopping = threading.Event()
        with ExitStack() as opened:  # what fails leaves nothing: the next message opens everything anew
            self.library: Library = opened.enter_context(open_listening(settings, make_renderers(own)))
            self.rows: JobRows = self.library.catalog.jobs
            kinds = make_kinds(settings, self.library, self._stopping)
            sender = Sender(app, self.rows, unheard_s=settings.job_resend_s)
            self.sender = opened.enter_context(closing(sender))  # after the carrier, which gives back
            self.carrier = opened.enter_context(closing(Carrier(self.rows, kinds, lease_s=settings.job_lease_s)))
            self.carrier.schedule()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Give back what is not finished, and close all parts."""
        self._stopping.set()
        self._opened.close()

    def carry_out(self, job_id: str) -> None:
        """Carry out the job whose turn it is, which need not be this one; nothing if this one does not wait.

        The broker knows neither turns nor priorities, nor lanes: what is urgent would wait behind the messages of all
        that is not. Each message is spent on one job: when that was another, this
        one is sent again, so that no job is left without a message.
        """
        self.carrier.schedule()
        told = self.rows.get(job_id)
        if told is None or told.state != "waiting" or told.kind not in self.carrier.kinds:
            return
        job = self.carrier.take(self.carrier.lanes)
        if job is None:
            return
        self.carrier.carry_out(job)
        if job.id != job_id:
            self.sender.send([job_id])


def _have_own_processes() -> None:
    """Let a process that Celery forked start renderers.

    Celery's copy of multiprocessing says of it, to the original too, that it is a daemon, which may have no processes
    since they would outlive it; renderers follow their parent.
    """
    original: Any = multiprocessing.process
    original._current_process = _STARTED


class _Opening:
    """Opens the work of this process once, when it is first needed; a forked process opens its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._work: Work | None = None

    def get(self) -> Work:
        with self._lock:
            if self._work is None:
                self._work = Work(self._settings)
            return self._work

    def close(self) -> None:
        with self._lock:
            work, self._work = self._work, None
        if work is not None:
            work.close()


def _load() -> tuple[Settings, str]:
    settings = load()
    if settings.jobs != "celery" or settings.broker is None:
        raise SettingsError('Celery workers need jobs="celery" and broker, for the servers too: see lazypix.toml')
    return settings, settings.broker.get_secret_value()


try:
    _settings, _broker = _load()
except SettingsError as error:
    raise SystemExit(f"lazypix: {error}") from None  # read by a person who started a worker

app = make_app(_broker)
_opening = _Opening(_settings)


def job(*given: Any, **named: Any) -> None:
    """Carry out a job. Nothing of the message is believed: all that it can do is name a job that waits."""
    if len(given) != 1 or named or not isinstance(given[0], str) or not _ID.fullmatch(given[0]):
        log.warning("a message that is none of ours was thrown away")
        return
    try:
        _opening.get().carry_out(given[0])
    except LazypixError as error:  # it is sent again when nobody has begun it for long
        log.warning("a message was spent for nothing: %s", error)


def resend(*_: Any, **__: Any) -> None:
    """Tell workers again of what a broker lost, and of jobs whose time has come."""
    try:
        work = _opening.get()
        work.carrier.schedule()
        work.sender.resend()
    except LazypixError as error:  # the next time may go better
        log.warning("jobs could not be looked for: %s", error)


def _close(**_: Any) -> None:
    _opening.close()


app.task(name=JOB)(job)
app.task(name=RESEND)(resend)
signals.worker_process_shutdown.connect(_close)  # of a forked process
signals.worker_shutdown.connect(_close)
