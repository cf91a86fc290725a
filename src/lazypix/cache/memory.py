"""A cache of finished things in memory, with a bound in bytes and a time to live."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class MemoryCache(Generic[V]):
    """Holds at most `max_bytes`, each entry for at most `ttl_s` seconds; the least recently used goes first.

    Safe to use from many threads. An entry larger than an eighth of the bound is not taken, so that one large
    answer cannot drive out all the others.
    """

    def __init__(self, *, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[object, tuple[V, int, float]] = OrderedDict()
        self._bytes = 0
        # All entries live equally long, so in the order of their making the too old ones stand first.
        self._ages: OrderedDict[object, float] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held now, as counted by the callers of `set`."""
        return self._bytes

    def get(self, key: object) -> V | None:
        """Return the value, or None when there is none or it is too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry[2] < self._clock():
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def set(self, key: object, value: V, size: int) -> None:
        """Keep `value`, which counts as `size` bytes."""
        with self._lock:
            self._drop(key)
            if size > self._max_bytes // 8:
                return
            now = self._clock()
            self._drop_old(now)
            self._entries[key] = (value, size, now + self._ttl_s)
            self._ages[key] = now + self._ttl_s
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def delete(self, key: object) -> None:
        """Forget the value, if there is one."""
        with self._lock:
            self._drop(key)

    def _drop_old(self, now: float) -> None:
        while self._ages:
            key, until = next(iter(self._ages.items()))
            if until >= now:
                return
            self._drop(key)

    def _drop(self, key: object) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            del self._ages[key]
            self._bytes -= entry[1]
