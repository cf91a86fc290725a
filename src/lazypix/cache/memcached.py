"""A cache in a memcached server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from lazypix.cache import TIMEOUT_S, CacheFailed
from lazypix.cache.naming import plain_key
from lazypix.errors import SettingsError

try:
    from pymemcache.client.base import PooledClient
    from pymemcache.exceptions import MemcacheError, MemcacheServerError, MemcacheUnexpectedCloseError
except ImportError:
    raise SettingsError("memcached needs a package: pip install 'lazypix[memcached]'") from None

# Longer times are taken for points in time. Source: memcached, doc/protocol.txt, "Expiration times".
_LONGEST_TTL_S = 30 * 24 * 60 * 60


class MemcachedCache:
    """Keeps bytes in one memcached server; `sharded.ShardedCache` makes one cache of several.

    Values larger than the server takes (1 MB, unless it is told otherwise with `-I`) are not kept. Times are whole
    seconds. Waiting for a host's name to be looked up is the system's affair, and not part of `timeout_s`.
    """

    def __init__(self, host: str, port: int = 11211, *, prefix: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Connect when first used."""
        self._name = f"MemcachedCache({host}:{port})"
        self._prefix = prefix
        self._client = connect(host, port, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return self._name

    def get(self, key: str) -> bytes | None:
        with translated(self._client, CacheFailed):
            found = self._client.get(plain_key(self._prefix, key))
        return found if isinstance(found, bytes) else None

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        with translated(self._client, CacheFailed), _no_room_is_no_error():
            self._client.set(plain_key(self._prefix, key), value, expire=_seconds(ttl_s))

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        with translated(self._client, CacheFailed), _no_room_is_no_error():
            return bool(self._client.add(plain_key(self._prefix, key), value, expire=_seconds(ttl_s)))
        return False

    def delete(self, key: str) -> None:
        with translated(self._client, CacheFailed):
            self._client.delete(plain_key(self._prefix, key))

    def close(self) -> None:
        self._client.close()


def connect(host: str, port: int, *, timeout_s: float) -> PooledClient:
    """Return a client that connects when it is first used, and waits so long for each answer."""
    return PooledClient(
        (host, port),
        connect_timeout=timeout_s,
        timeout=timeout_s,
        no_delay=True,
        default_noreply=False,  # else a failure to write would not be noticed
    )


@contextmanager
def translated(client: PooledClient, failure: type[Exception]) -> Iterator[None]:
    """Raise `failure` for whatever a memcached server, or something else in its place, can do wrong."""
    try:
        yield
    except (MemcacheError, OSError, ValueError, LookupError) as error:  # the last two: not its protocol
        _drop_idle(client)
        raise failure(f"{type(error).__name__}: {error}") from error


def _drop_idle(client: PooledClient) -> None:
    """Close the connections that nobody uses now: after a restart of the server each would fail once.

    The pool's own `clear` would close those too that other threads are reading from.
    """
    pool = client.client_pool
    for _ in pool.free:
        pool.destroy(pool.get())


@contextmanager
def _no_room_is_no_error() -> Iterator[None]:
    """Let pass what a healthy server says of a value: that it is too large, or that there is no memory for it."""
    try:
        yield
    except MemcacheUnexpectedCloseError:
        raise
    except MemcacheServerError:
        pass


def _seconds(ttl_s: float) -> int:
    assert ttl_s > 0
    return min(math.ceil(ttl_s), _LONGEST_TTL_S)
