"""Leases in a Redis server."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from lazypix.cache.naming import plain_key
from lazypix.cache.redis import redis_client, translated
from lazypix.cache.servers import RedisServer
from lazypix.lease import TIMEOUT_S, Lease, LeaseFailed

# One step each, for the server. `TIME` before a write needs Redis 5. Lua's numbers are exact up to 2^53, which
# microseconds since 1970 reach in the year 2255.
_TAKE = """
local now = redis.call('TIME')
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return false
end
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local fence = string.format('%.0f', math.max(last + 1, now[1] * 1000000 + now[2]))
redis.call('SET', KEYS[2], fence)
return fence
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('DEL', KEYS[1])
"""


class RedisLeases:
    """Leases in Redis 5 or newer, or in what speaks its protocol; not in a Redis Cluster.

    A server with replicas forgets the newest leases when one of these takes over.
    """

    def __init__(self, server: RedisServer, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect when first used."""
        self._name = f"RedisLeases({server})"
        self._prefix = server.prefix
        self._redis = redis_client(server, timeout_s=timeout_s)
        self._take, self._renew, self._release = map(self._redis.register_script, (_TAKE, _RENEW, _RELEASE))

    def __repr__(self) -> str:
        return self._name

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        token = secrets.token_hex(16)
        with translated(LeaseFailed):
            fence = self._take(keys=self._keys(key, "fence"), args=[token, _milliseconds(ttl_s)])
            return Lease(key=key, token=token, fence=int(fence)) if fence is not None else None

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        with translated(LeaseFailed):
            return bool(self._renew(keys=self._keys(lease.key), args=[lease.token, _milliseconds(ttl_s)]))

    def release(self, lease: Lease) -> bool:
        with translated(LeaseFailed):
            return bool(self._release(keys=self._keys(lease.key), args=[lease.token]))

    def close(self) -> None:
        self._redis.close()

    def _keys(self, key: str, *others: str) -> Sequence[str]:
        return [plain_key(self._prefix, f"lease:{key}"), *(plain_key(self._prefix, other) for other in others)]


def _milliseconds(ttl_s: float) -> int:
    assert ttl_s > 0
    return max(1, round(ttl_s * 1000))
