"""A cache in this process, for tests: it is shared with nobody, and its clock can be set by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class ProcessCache:
    """Keeps bytes in a dictionary, without a bound."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[bytes, float]] = {}

    def __repr__(self) -> str:
        return "ProcessCache()"

    def keys(self) -> list[str]:
        """Return the keys under which there is something now."""
        with self._lock:
            return [key for key in self._entries if self._found(key) is not None]

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._found(key)

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        with self._lock:
            self._keep(key, value, ttl_s)

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        with self._lock:
            if self._found(key) is not None:
                return False
            self._keep(key, value, ttl_s)
            return True

    def delete(self, key: str) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def close(self) -> None:
        pass

    def _found(self, key: str) -> bytes | None:
        value, until = self._entries.get(key, (None, 0.0))
        return value if until > self._clock() else None

    def _keep(self, key: str, value: bytes, ttl_s: float) -> None:
        assert ttl_s > 0
        self._entries[key] = value, self._clock() + ttl_s
