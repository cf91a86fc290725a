"""Messages to Celery's workers. A message holds the id of a job; the table knows the rest, and is right.

Losing one costs time: whoever has `resend_every_s` looks for jobs that nobody has begun, and tells of them again.
Doubling one costs nothing.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lazypix.catalog.jobs import JobRows
from lazypix.errors import LazypixError, SettingsError

try:
    from amqp.exceptions import AMQPError
    from celery import Celery, signals
    from kombu.exceptions import KombuError
except ModuleNotFoundError:
    raise SettingsError("Celery needs another package: pip install 'lazypix[celery]'") from None

__all__ = ["JOB", "QUEUE", "RESEND", "RESEND_EVERY_S", "Celery", "Sender", "make_app", "signals"]

log = logging.getLogger("lazypix.jobs")

JOB, RESEND = "lazypix.job", "lazypix.resend"
"""Names of the tasks: carry out one job, tell again of those that were lost."""
QUEUE = "lazypix"
RESEND_EVERY_S = 5.0

# Redis gives a message to another worker when nobody has acknowledged it for so long: longer than any job takes. It
# is not what a killed worker's job waits for: that is begun again when its lease is over.
_VISIBLE_S = 900
_PATIENCE_S = 3.0
_ANSWER_S = 10.0  # longer than workers wait for a message at a time; without it one that hangs is never noticed
_REDIS = {
    "visibility_timeout": _VISIBLE_S,
    "socket_connect_timeout": _PATIENCE_S,
    "socket_timeout": _ANSWER_S,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
_MOST_WAITING = 10_000
_FAILURES = (KombuError, AMQPError, OSError)
ENOUGH = 1000
"""Messages that lie in the broker: with so many, none is sent again, as any of them has the next job carried out."""


def make_app(broker: str) -> Celery:
    """Make the Celery application of a broker; nothing is connected to yet."""
    app = Celery("lazypix", broker=broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],  # never pickle: whoever reaches the broker could run anything here
        task_serializer="json",
        result_accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the job is kept in the table, not in the broker
        broker_connection_timeout=_PATIENCE_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_REDIS if broker.startswith("redis") else {"confirm_publish": False},
        beat_scheduler="celery.beat:Scheduler",  # what is due is in the table: beat needs no file
        beat_schedule={
            "resend": {"task": RESEND, "schedule": RESEND_EVERY_S, "options": {"expires": 2 * RESEND_EVERY_S}}
        },
    )
    return app


class Sender:
    """Tells workers of jobs, in a thread of its own: a request never waits for the broker. Close it."""

    def __init__(self, app: Celery, rows: JobRows, *, unheard_s: float, resend_every_s: float | None = None) -> None:
        """Tell of every job that this process adds to `rows`.

        With `resend_every_s`, also of those that any process added and nobody began for `unheard_s` seconds, or whose
        time has come.
        """
        self._app = app
        self._rows = rows
        self._unheard_s = unheard_s
        self._resend_every_s = resend_every_s
        self._waiting: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._closing = threading.Event()
        self._is_away = False
        rows.announce = self.send
        self._thread = threading.Thread(target=self._work, name="lazypix-sender", daemon=True)
        self._thread.start()

    def send(self, ids: Sequence[str]) -> None:
        """Have workers told of jobs soon. What cannot be sent is sent by who looks for such jobs."""
        for job_id in ids:
            try:
                self._waiting.put_nowait(job_id)
            except queue.Full:
                return

    def resend(self) -> None:
        """Tell of jobs whose time has come, or that nobody began for long; not while the broker has `ENOUGH`."""
        if self._undelivered() + self._waiting.qsize() < ENOUGH:
            self.send(self._rows.unannounced(for_s=self._unheard_s))

    def close(self) -> None:
        """Send what is left if the broker is there, and stop."""
        self._closing.set()
        self._thread.join(timeout=2 * _PATIENCE_S)
        self._app.close()

    def _undelivered(self) -> int:
        """Return how many messages lie in the broker; 0 also when it does not say."""
        with self._app.connection_for_write() as connection:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_PATIENCE_S)
                return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)
            except (*_FAILURES, *connection.connection_errors) as error:  # or there is no queue yet
                log.debug("the broker does not say how many messages it has: %s", type(error).__name__)
                return 0

    def _work(self) -> None:
        resend_at = time.monotonic() + random.uniform(0, self._resend_every_s or 0)  # noqa: S311  # jitter
        while not self._closing.is_set() or (not self._waiting.empty() and not self._is_away):
            with suppress(queue.Empty):
                self._publish(self._waiting.get(timeout=0.25))
            if self._resend_every_s is not None and time.monotonic() >= resend_at:
                resend_at = time.monotonic() + self._resend_every_s * random.uniform(0.5, 1.5)  # noqa: S311
                self._resend_quietly()

    def _resend_quietly(self) -> None:
        if self._waiting.qsize() > _MOST_WAITING / 2:
            return
        try:
            self.resend()
        except LazypixError as error:  # the catalog may be back the next time
            log.warning("jobs could not be looked for: %s", error)

    def _publish(self, job_id: str) -> None:
        once_more: dict[str, Any] = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
        try:
            self._app.send_task(JOB, args=[job_id], retry=True, retry_policy=once_more, ignore_result=True)
        except _FAILURES as error:
            if not self._is_away:
                log.warning("the broker is away (%s): jobs are sent when it is back", type(error).__name__)
            self._is_away = True
        else:
            self._is_away = False
