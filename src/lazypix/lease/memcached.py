"""Leases in a memcached server."""

from __future__ import annotations

import math
import secrets
import time

from lazypix.cache.memcached import connect, translated
from lazypix.cache.naming import plain_key
from lazypix.lease import TIMEOUT_S, Lease, LeaseFailed

_TRIES = 4


class MemcachedLeases:
    """Leases in one memcached server; `sharding.ShardedLeases` makes one of several.

    The server's clock has no parts of a second: of N seconds the last may be missing. So that a dead holder holds up
    nobody for longer than was asked for, a living one counts on one second less (`early_s`). The shortest time is two
    seconds. A server that is full may drop a lease sooner. Fences are counted by the server and follow the clocks of
    its clients, of which the one that is most ahead decides.
    """

    def __init__(self, host: str, port: int = 11211, *, prefix: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Connect when first used."""
        self._name = f"MemcachedLeases({host}:{port})"
        self._prefix = prefix
        self._client = connect(host, port, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return self._name

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        token, name = secrets.token_hex(16), self._key(key)
        with translated(self._client, LeaseFailed):
            if not self._client.add(name, token.encode(), expire=_seconds(ttl_s)):
                return None
            return Lease(key=key, token=token, fence=self._next_fence(), early_s=_early_s(ttl_s))

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        return self._replace(lease, lease.token.encode(), _seconds(ttl_s))

    def release(self, lease: Lease) -> bool:
        # There is no "delete if it is mine": an entry that ends before now is gone at once.
        return self._replace(lease, b"", -1)

    def close(self) -> None:
        self._client.close()

    def _replace(self, lease: Lease, value: bytes, expire: int) -> bool:
        name = self._key(lease.key)
        with translated(self._client, LeaseFailed):
            found, number = self._client.gets(name)
            if found != lease.token.encode():
                return False
            return bool(self._client.cas(name, value, number, expire=expire, noreply=False))

    def _next_fence(self) -> int:
        """Count up, at least to the time; called by the holder of a lease only, but of any key."""
        name = plain_key(self._prefix, "fence")
        for _ in range(_TRIES):
            now = time.time_ns() // 1000
            last, number = self._client.gets(name)
            if last is None:
                if self._client.add(name, b"%d" % now):
                    return now
            else:
                fence = max(int(last) + 1, now)
                if self._client.cas(name, b"%d" % fence, number, noreply=False):
                    return fence
        counted = self._client.incr(name, 1)  # many count at once, so that it follows the time anyway
        if counted is None:
            raise LeaseFailed("the server keeps nothing")
        return int(counted)

    def _key(self, key: str) -> str:
        return plain_key(self._prefix, f"lease:{key}")


def _seconds(ttl_s: float) -> int:
    assert ttl_s > 0
    return max(2, math.ceil(ttl_s))  # of a single one nothing might be left


def _early_s(ttl_s: float) -> float:
    return max(0.0, ttl_s - (_seconds(ttl_s) - 1))
