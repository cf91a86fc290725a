"""Carrying out jobs: what a kind of job is, and what becomes of one that fails.

To add a kind: write what carries it out, and add its `Kind` to `make_kinds` in `lazypix.composition`. Its jobs are
added as `NewJob`s, in the transaction of what they belong to.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from lazypix.catalog.jobs import Job

__all__ = ["IMAGES", "UPKEEP", "Interrupted", "Kind"]

IMAGES, UPKEEP = "images", "upkeep"
"""Lanes: the usual, and what takes minutes. What may hang for the fault of others wants a lane of its own."""


class Interrupted(Exception):
    """Raised by what carries out a job when this process ends: the job is given back, as if it had not been begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of job: how it is carried out, and how often it is tried."""

    name: str
    """What a job says it is; one that is done for several destinations has a kind for each, as `replicate:<name>`."""
    carry_out: Callable[[Job], None]
    """Do it. Twice, or by two at once, must do no harm. What it raises is recorded: an error that is the job's own
    fault (a `LazypixError` with a status below 500) at once ends it, any other has it tried again."""
    lane: str = IMAGES
    """Each lane has workers of its own, so that slow kinds do not keep others from being done."""
    attempts: int = 8
    """After so many it is dead, until somebody has it retried."""
    first_wait_s: float = 2.0
    longest_wait_s: float = 3600.0
    """Between attempts it waits for up to the first, twice that, and so on, never longer than this."""
    every_s: float | None = None
    """Done again and again, so many seconds after the last time, by one process of all; never dead."""

    def wait_s(self, attempts: int) -> float:
        """Return seconds until the next attempt after so many: random, so that what failed together comes apart.

        Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog), "full jitter".
        """
        most = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempts - 1, 60))
        return random.uniform(0, most)  # noqa: S311  # jitter, not a secret
