"""Caches keep for a while what can be made again.

`Cache` is the contract of those that many machines share; every implementation passes `tests/contracts`.
`memory.MemoryCache` is another thing: it holds values of any type, in one process.
"""

from __future__ import annotations

from typing import Protocol

TIMEOUT_S = 0.25
"""How long a shared cache may let one read or one connection wait: longer, and making it again is the better deal."""


class CacheFailed(Exception):
    """A cache did not answer, or refused. Raised by adapters, swallowed by `guarded.Guarded`: no caller sees it."""


class Cache(Protocol):
    """Keeps bytes under a key, for a time, with other processes and machines. Safe to use from many threads.

    Keys are any text, values any bytes. An entry may be gone at any moment, long before its time: a cache holds
    nothing that cannot be made again. Times to live are more than 0 seconds; a cache may round them up to whole
    seconds, and keeps nothing for longer than about 30 days. They are measured by the cache's own clock.

    Every method but `close` raises `CacheFailed`. It is then not known whether a write was carried out; it may even
    be carried out later, when a server that hung goes on. No error and no `repr` holds a secret.
    """

    def get(self, key: str) -> bytes | None:
        """Return the value, or None when there is none."""
        ...

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keep `value`, in place of one that is there.

        What the cache has no room for is not kept, and that is no error; what was there before may then be gone.
        """
        ...

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        """Keep `value` if there is none yet; return whether it is kept. Of several at once exactly one is."""
        ...

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        ...

    def close(self) -> None:
        """Give connections back. A second time does nothing."""
        ...
