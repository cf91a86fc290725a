"""What the processes of all machines tell each other by memcached: which sizes are stored, and who stores one."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from lazypix.cache import Cache
from lazypix.cache.memory import MemoryCache
from lazypix.cache.opening import open_cache

STORED_S = 600
"""For so many seconds a size that was found in the bucket is believed to be there: it may be purged meanwhile."""
STORING_S = 60
"""For so many seconds nobody else is told to store a size."""
_OWN_S = 60
_REMEMBERED = 10_000


class Fleet:
    """What is known among all processes that ask the same memcached servers. Safe to use from many threads.

    While they are away, or without any, each process knows for itself: a size may then be stored by a task of each.
    """

    def __init__(self, shared: Cache | None = None) -> None:
        self._shared = shared
        self._stored: MemoryCache[bool] = MemoryCache(max_bytes=_REMEMBERED, ttl_s=_OWN_S)
        self._storing: MemoryCache[bool] = MemoryCache(max_bytes=_REMEMBERED, ttl_s=STORING_S)
        self._lock = threading.Lock()

    def is_stored(self, key: str) -> bool:
        """Tell whether somebody found this in the bucket not long ago."""
        if self._stored.get(key):
            return True
        return self._shared is not None and self._shared.get(f"stored:{key}") is not None

    def remember_stored(self, key: str) -> None:
        """Have all know that this lies in the bucket."""
        self._stored.set(key, True, 1)
        if self._shared is not None:
            self._shared.set(f"stored:{key}", b"1", ttl_s=STORED_S)

    def begin_storing(self, key: str) -> bool:
        """Tell whether this is ours to have stored; then it is nobody else's for a minute."""
        if self._shared is not None:
            name = f"storing:{key}"
            if self._shared.add(name, b"1", ttl_s=STORING_S):
                return True
            if self._shared.get(name) is not None:
                return False
        with self._lock:  # memcached does not answer
            if self._storing.get(key):
                return False
            self._storing.set(key, True, 1)
            return True

    def close(self) -> None:
        """Give connections back."""
        if self._shared is not None:
            self._shared.close()


_fleets: dict[tuple[int, tuple[str, ...]], Fleet] = {}


def fleet_of(hosts: Sequence[str] = ()) -> Fleet:
    """Return what this process knows by these memcached servers (`host:port`); none: by itself.

    Connections do not go through a fork: a forked process has its own.

    Raises:
        SettingsError: a host is malformed, or a package is missing.
    """
    own = os.getpid(), tuple(hosts)
    if own not in _fleets:
        shared = open_cache(f"memcached://{','.join(hosts)}?prefix=imagestorage:") if hosts else None
        _fleets.setdefault(own, Fleet(shared))
    return _fleets[own]


def close_all() -> None:
    """Close all of this process; each is made anew when it is asked for again."""
    for own in [own for own in _fleets if own[0] == os.getpid()]:
        _fleets.pop(own).close()
