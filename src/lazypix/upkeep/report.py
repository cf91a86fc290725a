"""What became of the images of a library while it was copied, packed or unpacked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

_MOST_FAILURES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How far the work is; at its end, what came of it."""

    total: int | None = None
    """How many images there were at the start; None when that is not known."""
    copied: int = 0
    """Images whose original is now where it was to go."""
    skipped: int = 0
    """Images that were there already."""
    deleted: int = 0
    """Deleted images of which it is now known there too that they are."""
    variants: int = 0
    bytes: int = 0
    """Of originals and variants that were copied."""
    failed: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    """Ident and reason, of the first thousand."""

    @property
    def done(self) -> int:
        """Images of which it is known what became of them."""
        return self.copied + self.skipped + self.deleted + self.failed

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        names = ("copied", "skipped", "deleted", "variants", "bytes", "failed")
        failures = [{"ident": ident, "reason": reason} for ident, reason in self.failures]
        return {name: getattr(self, name) for name in names} | {"failures": failures}


Progress = Callable[[Report], None]
"""Is called whenever something was done, by one thread at a time."""


class Tally:
    """Counts what is done. Safe to use from many threads."""

    def __init__(self, progress: Progress | None, total: int | None = None) -> None:
        self.report = Report(total=total)
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, **numbers: int) -> None:
        """Add to the report's numbers of these names."""
        with self._lock:
            sums: dict[str, Any] = {name: getattr(self.report, name) + number for name, number in numbers.items()}
            self._set(replace(self.report, **sums))

    def fail(self, ident: str, reason: object) -> None:
        """Count an image that could not be dealt with."""
        with self._lock:
            failures = (*self.report.failures, (ident, str(reason)))[:_MOST_FAILURES]
            self._set(replace(self.report, failed=self.report.failed + 1, failures=failures))

    def _set(self, report: Report) -> None:
        self.report = report
        if self._progress is not None:
            self._progress(report)
