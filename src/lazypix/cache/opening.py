"""From a URL to a cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lazypix.cache import TIMEOUT_S, Cache
from lazypix.cache.guarded import Guarded
from lazypix.cache.naming import PREFIX_RULE, is_prefix
from lazypix.cache.servers import MemcachedServers, RedisServer
from lazypix.cache.sharded import ShardedCache
from lazypix.errors import SettingsError

_REDIS = "redis://[[user]:password@]host[:port][/database], rediss://… (the same over TLS)"
ACCEPTED = f"{_REDIS} or memcached://host[:port][,host[:port]…], each with an optional ?prefix=…"
"""The URLs that `open_cache` takes, in words for error messages."""
ACCEPTED_REDIS = f"{_REDIS}, each with an optional ?prefix=…"
"""The URLs that `redis_server` takes."""

_DEFAULT_PREFIX = "lazypix:"
_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII)
_SERVER = re.compile(rf"(?P<host>{_HOST.pattern})(?::(?P<port>[0-9]{{1,5}}))?", re.ASCII)
_DATABASE = re.compile(r"/?|/(?P<db>[0-9]{1,5})", re.ASCII)


def open_cache(url: str, *, timeout_s: float = TIMEOUT_S) -> Cache:
    """Return the cache that a URL names. Its failures are misses: it is `Guarded`, each server for itself.

    A server is connected to when it is first used: it need not run yet. Machines that share a cache need the same
    list of servers, and the same prefix (without one: `lazypix:`).

    Raises:
        SettingsError: the URL is none of those accepted, or a package is missing.
    """
    servers = shared_servers(url, of="cache")
    if isinstance(servers, RedisServer):
        from lazypix.cache.redis import RedisCache  # needs a package that only those have who use it

        return Guarded(RedisCache(servers, timeout_s=timeout_s))
    from lazypix.cache.memcached import MemcachedCache  # likewise

    shards: list[tuple[str, Cache]] = []
    for host, port in servers.addresses:
        cache = MemcachedCache(host, port, prefix=servers.prefix, timeout_s=timeout_s)
        shards.append((f"{host}:{port}", Guarded(cache)))
    return shards[0][1] if len(shards) == 1 else ShardedCache(shards)


def shared_servers(url: str, *, of: str, accepted: str = ACCEPTED) -> RedisServer | MemcachedServers:
    """Return the servers that a URL names, for other uses than a cache too. No I/O.

    `of` says in error messages what it is the URL of, `accepted` what else is.

    Raises:
        SettingsError: the URL is none of those accepted.
    """
    with _told_of(of, accepted):
        parts = _split(url, ("redis", "rediss", "memcached"))
        prefix = _prefix(parts.query)
        return _memcached(parts, prefix) if parts.scheme == "memcached" else _redis_server(parts, prefix)


def redis_server(url: str, *, of: str) -> RedisServer:
    """Return the Redis server that a URL names, for other uses than a cache. No I/O.

    `of` says in error messages what it is the URL of.

    Raises:
        SettingsError: the URL is not one of a Redis server.
    """
    with _told_of(of, ACCEPTED_REDIS):
        parts = _split(url, ("redis", "rediss"))
        return _redis_server(parts, _prefix(parts.query))


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _Wrong("it cannot be read") from None  # the original error may quote a password
    if parts.scheme not in schemes:
        raise _Wrong(f"unknown scheme {parts.scheme!r}" if "://" in url else "it has no scheme")
    if parts.fragment:
        raise _Wrong("a # in a user name or a password is written %23")
    return parts


def _redis_server(parts: SplitResult, prefix: str) -> RedisServer:
    login, at, server = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if at and not (colon and password):
        raise _Wrong("before the @ there is no password")
    host, port = _server(server, 6379)
    match = _DATABASE.fullmatch(parts.path)
    if match is None:
        raise _Wrong("the database is not a number (and a / in a user name or a password is written %2F)")
    return RedisServer(
        host=host, port=port, db=int(match["db"] or 0), username=unquote(user) or None,
        password=unquote(password) or None, tls=parts.scheme == "rediss", prefix=prefix,
    )  # fmt: skip


def _memcached(parts: SplitResult, prefix: str) -> MemcachedServers:
    if "@" in parts.netloc:
        raise _Wrong("memcached is spoken to without user name and password")
    if parts.path not in ("", "/"):
        raise _Wrong("memcached has no databases, so nothing comes between the servers and the ?")
    addresses = dict.fromkeys(_server(server, 11211) for server in parts.netloc.split(","))
    return MemcachedServers(addresses=tuple(addresses), prefix=prefix)


def _server(text: str, default_port: int) -> tuple[str, int]:
    match = _SERVER.fullmatch(text)
    port = int(match["port"] or default_port) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise _Wrong("a host or its port is missing or malformed")
    return match["host"].strip("[]"), port


def _prefix(query: str) -> str:
    options = parse_qsl(query, keep_blank_values=True)
    if len(options) > 1 or any(name != "prefix" for name, _ in options):
        raise _Wrong("after the ? there is something else than one prefix")
    prefix = options[0][1] if options else _DEFAULT_PREFIX
    if not is_prefix(prefix):
        raise _Wrong(f"the prefix must be {PREFIX_RULE}")
    return prefix


class _Wrong(Exception):
    """Says what is wrong with a URL; of it a scheme at most, for any other part may hold a piece of a password."""


@contextmanager
def _told_of(what: str, accepted: str) -> Iterator[None]:
    try:
        yield
    except _Wrong as wrong:
        raise SettingsError(f"The URL of the {what} is wrong: {wrong}; accepted: {accepted}") from None
