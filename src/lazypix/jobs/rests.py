"""Kinds of jobs that rest because what they need is away: thousands of jobs shall not each try in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_IN_A_ROW = 3
_FIRST_S, _LONGEST_S = 1.0, 60.0


class Rests:
    """Remembers, in this process, how often each kind failed in a row. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def failed(self, kind: str) -> None:
        """Note that what a kind needs did not answer: after three times it rests, longer with each time."""
        with self._lock:
            failures = self._failures[kind] = self._failures.get(kind, 0) + 1
            if failures >= _IN_A_ROW:
                rest_s = min(_LONGEST_S, _FIRST_S * 2.0 ** min(failures - _IN_A_ROW, 10))
                self._until[kind] = self._clock() + rest_s

    def answered(self, kind: str) -> None:
        """Note that it did."""
        with self._lock:
            self._failures.pop(kind, None)
            self._until.pop(kind, None)

    def is_resting(self, kind: str) -> bool:
        """Tell whether a kind is not to be tried now."""
        with self._lock:
            return self._until.get(kind, 0.0) > self._clock()
