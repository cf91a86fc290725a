"""The kinds of jobs that a library has by itself: sizes made ahead, sweeping, scrubbing."""

from __future__ import annotations

import math
import threading

from lazypix.catalog.jobs import Job
from lazypix.errors import UnknownImage
from lazypix.jobs import UPKEEP, Interrupted, Kind
from lazypix.library import Library
from lazypix.orders import WARM
from lazypix.transform import Transform
from lazypix.upkeep.scrubbing import ScrubReport, scrub

_SWEEP_EVERY_S = 600.0
_SCRUB_EVERY_S, _SCRUB_FOR_S = 60.0, 50.0  # short, so that a worker that is to end need not wait for long


def warm(library: Library) -> Kind:
    """Sizes that are named at upload, or later: made when nothing else is to do."""

    def carry_out(job: Job) -> None:
        assert job.ident is not None
        try:
            library.variant(job.ident, Transform.parse(job.payload["transform"]), background=True)
        except UnknownImage:  # deleted meanwhile
            return

    return Kind(name=WARM, carry_out=carry_out)


def sweep(library: Library) -> Kind:
    """What killed processes left in store and catalog."""
    return Kind(name="sweep", carry_out=lambda _: _swept(library), lane=UPKEEP, every_s=_SWEEP_EVERY_S)


def _swept(library: Library) -> None:
    library.sweep()


def scrubbing(library: Library, *, bytes_per_s: float, older_than_s: float, stopping: threading.Event) -> Kind:
    """Some originals are verified; without a rate, those alone that are known to be damaged.

    One that only looked so, because the way to its store was bad, is served again then, without anybody's help.
    """
    age_s = older_than_s if bytes_per_s else math.inf

    def go_on(_: ScrubReport) -> None:
        if stopping.is_set():
            raise Interrupted

    def carry_out(_: Job) -> None:
        scrub(library, bytes_per_s=bytes_per_s, older_than_s=age_s, budget_s=_SCRUB_FOR_S, progress=go_on)

    return Kind(name="scrub", carry_out=carry_out, lane=UPKEEP, every_s=_SCRUB_EVERY_S)
