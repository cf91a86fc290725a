"""A shared cache whose failure slows, and never breaks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from lazypix.cache import Cache, CacheFailed
from lazypix.cache.breaker import Breaker

T = TypeVar("T")


class Guarded:
    """Turns the failures of a cache into misses, and leaves a cache that failed alone for a while, as `Breaker` does.

    A write that is swallowed is lost: who must know whether it was carried out reads it back.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance` gives numbers from 0 to 1."""
        self._cache = cache
        self._breaker = Breaker(cache, CacheFailed, clock=clock, chance=chance)

    def __repr__(self) -> str:
        return f"Guarded({self._cache!r})"

    def get(self, key: str) -> bytes | None:
        return self._ask(lambda: self._cache.get(key), otherwise=None)

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._ask(lambda: self._cache.set(key, value, ttl_s=ttl_s), otherwise=None)

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        return self._ask(lambda: self._cache.add(key, value, ttl_s=ttl_s), otherwise=False)

    def delete(self, key: str) -> None:
        self._ask(lambda: self._cache.delete(key), otherwise=None)

    def close(self) -> None:
        self._cache.close()

    def _ask(self, work: Callable[[], T], *, otherwise: T) -> T:
        try:
            return self._breaker.ask(work)
        except CacheFailed:
            return otherwise
