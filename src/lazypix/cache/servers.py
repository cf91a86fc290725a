"""Where a server is, and how one logs in there."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """A Redis server, or what speaks its protocol."""

    host: str
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    """The server's certificate is then verified by the system's authorities."""
    prefix: str = ""
    """Put before the keys, so that several can use one server."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.db}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemcachedServers:
    """One or more memcached servers, each of which has a part of the keys."""

    addresses: tuple[tuple[str, int], ...]
    """Hosts and ports, each once."""
    prefix: str = ""
    """Put before the keys, so that several can use one server."""
