"""What an operator watches, as Prometheus reads it: jobs, replicas that lag behind, the queue of variants."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lazypix.catalog.job_values import JobState
from lazypix.http import SAFE, Answer
from lazypix.library import Library
from lazypix.orders import replicate

_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_UNDONE: tuple[JobState, ...] = ("waiting", "later", "running", "held")


def metrics(library: Library) -> Answer:
    """Return all figures; the catalog is asked for them now.

    Raises:
        StoreFailed: it does not answer.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(library))
    body = generate_latest(registry)
    length = (b"content-length", b"%d" % len(body))
    return Answer(
        status=200, headers=((b"content-type", _TYPE), length, (b"cache-control", b"no-store"), *SAFE), body=body
    )


class _Figures(Collector):
    """Collects the figures when it is asked for them."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def describe(self) -> Iterator[Metric]:
        return iter(())  # so that registering does not ask the catalog

    def collect(self) -> Iterator[Metric]:
        counts = self._library.catalog.jobs.count()
        jobs = GaugeMetricFamily("lazypix_jobs", "Jobs in the catalog.", labels=["kind", "state"])
        for kind, states in counts.items():
            for state, number in states.items():
                jobs.add_metric([kind, state], number)
        yield jobs
        dead = sum(states.get("dead", 0) for states in counts.values())
        yield GaugeMetricFamily(
            "lazypix_jobs_dead", "Jobs that were given up: `lazypix jobs list --dead`.", value=dead
        )
        waiting = GaugeMetricFamily("lazypix_replica_jobs", "Jobs that a replica waits for.", labels=["replica"])
        lag = GaugeMetricFamily(
            "lazypix_replica_lag_seconds", "Age of the oldest job that a replica waits for.", labels=["replica"]
        )
        for replica in self._library.replicas:
            states = counts.get(replicate(replica.name), {})
            waiting.add_metric([replica.name], sum(states.get(state, 0) for state in _UNDONE))
            lag.add_metric([replica.name], lag_s(self._library, replica.name))
        yield from (waiting, lag)
        number, seconds = self._library.backlog.load()
        yield GaugeMetricFamily("lazypix_queue", "Variants being made or waiting in this process.", value=number)
        yield GaugeMetricFamily(
            "lazypix_queue_seconds", "Seconds that one renderer would take for them, estimated.", value=seconds
        )


def lag_s(library: Library, replica: str) -> float:
    """Return the age in seconds of the oldest job that a replica waits for; those that were given up do not count."""
    found = [library.catalog.jobs.find(kind=replicate(replica), state=state, limit=1) for state in _UNDONE]
    return max((time.time() - job.created.timestamp() for jobs in found for job in jobs), default=0.0)
