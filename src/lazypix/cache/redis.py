"""A cache in a Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lazypix.cache import TIMEOUT_S, CacheFailed
from lazypix.cache.naming import plain_key
from lazypix.cache.servers import RedisServer
from lazypix.errors import SettingsError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import OutOfMemoryError, RedisError
    from redis.retry import Retry
except ImportError:
    raise SettingsError("Redis needs a package: pip install 'lazypix[redis]'") from None

# As many as threads use it at once: those are bounded already, and to fail for want of one would look like an outage.
_CONNECTIONS = 10_000


def redis_client(server: RedisServer, *, timeout_s: float) -> redis.Redis:
    """Return a client that connects when it is first used, and tries nothing twice. Safe to use from many threads.

    `timeout_s` bounds each connection and each answer.
    """
    return redis.Redis(
        host=server.host,
        port=server.port,
        db=server.db,
        username=server.username,
        password=server.password,
        ssl=server.tls,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),  # the default is ten times, with pauses
        max_connections=_CONNECTIONS,
        protocol=2,  # one round trip less when connecting, and no messages but answers
    )


class RedisCache:
    """Keeps bytes in Redis, or in what speaks its protocol; not in a Redis Cluster.

    Nothing is tried twice: a server that hangs costs one timeout. A connection that was closed while nobody used it
    is opened anew. Waiting for a host's name to be looked up is the system's affair, and not part of `timeout_s`.
    """

    def __init__(self, server: RedisServer, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect when first used."""
        self._name = f"RedisCache({server})"
        self._prefix = server.prefix
        self._redis = redis_client(server, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return self._name

    def get(self, key: str) -> bytes | None:
        with translated(CacheFailed):
            found = self._redis.get(plain_key(self._prefix, key))
        return found if isinstance(found, bytes) else None

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._keep(key, value, ttl_s, only_new=False)

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        return self._keep(key, value, ttl_s, only_new=True)

    def delete(self, key: str) -> None:
        with translated(CacheFailed):
            self._redis.delete(plain_key(self._prefix, key))

    def close(self) -> None:
        self._redis.close()

    def _keep(self, key: str, value: bytes, ttl_s: float, *, only_new: bool) -> bool:
        assert ttl_s > 0
        with translated(CacheFailed):
            try:
                kept = self._redis.set(plain_key(self._prefix, key), value, px=max(1, int(ttl_s * 1000)), nx=only_new)
            except OutOfMemoryError:  # full, and told to evict nothing; what is in it can still be read
                return False
        return bool(kept)


@contextmanager
def translated(failure: type[Exception]) -> Iterator[None]:
    """Raise `failure` for whatever a Redis server, or something else in its place, can do wrong."""
    try:
        yield
    except (RedisError, OSError, ValueError, LookupError) as error:  # the last two: not its protocol
        raise failure(f"{type(error).__name__}: {error}") from error
