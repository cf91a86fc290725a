"""Beansdb on the wire: how keys are spelled, what is hashed, and one server with its connections.

The text protocol is memcached's, with other meanings. The exptime of a `set` is the *version*: 0 lets the server
count on, any other number must be greater than the one that is there, and a negative one with an empty value deletes.
`get ?key` tells about a key, `get @` and `get @8f` list the tree of all keys by the hex digits of their hashes, and
`get @8f:a/` only those that begin with `a/`.

Source: https://github.com/douban/beansdb, `src/hstore.c`, `src/bitcask.c`, `src/htree.c`
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from lazypix.errors import SettingsError, StoreFailed

BUCKETS = 16
PATH_DIGITS = 8
"""A key's hash has 32 bits: so many hex digits lead to it in the tree."""
MAX_NAME_BYTES = 249
"""The server takes 250 bytes, and `?` before a name is one of them."""
MAX_VALUE_BYTES = 100 * 1024 * 1024
REST_S = 3.0
"""How long a server that failed is left alone."""

_COMPRESSED = 0x10000
"""The server's own flag: a value that is set with it is lost."""
_FILTER_BYTES = 241
"""What a question of 250 bytes has room for beside `@` and a whole path."""
_ESCAPED = re.compile(rb"\A[@?]|[^!-$&-~]")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")

T = TypeVar("T")
log = logging.getLogger("lazypix")


def escape(key: str) -> bytes:
    """Return the name under which a key is kept: what Beansdb does not allow, and `%`, becomes `%` and two digits."""
    return _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], key.encode())


def unescape(name: bytes) -> str | None:
    """Return the key that has this name; None for a name that `escape` does not make."""
    try:
        key = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name).decode()
    except UnicodeDecodeError:
        return None
    return key if escape(key) == name else None


def fnv1a(data: bytes) -> int:
    """Return the 32 bit hash by which keys find their bucket; bytes are signed, as they are in the server."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 0x01000193 & 0xFFFFFFFF
    return value


def value_hash(value: bytes) -> int:
    """Return the server's 16 bit hash of a value; of a long one it looks at both ends only."""
    total = len(value) * 97
    if len(value) <= 1024:
        total += fnv1a(value)
    else:
        total = (total + fnv1a(value[:512])) * 97 + fnv1a(value[-512:])
    return total & 0xFFFF


def bucket_of(name: bytes) -> int:
    """Return the bucket of a name, 0 to 15: the top bits of its hash."""
    return fnv1a(name) >> 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a server knows of a key without its value."""

    version: int
    """Counts up with every change; negative: the key was deleted."""
    hash: int
    """Of the value, 16 bits."""

    @property
    def live(self) -> bool:
        """There is a value."""
        return self.version > 0

    @property
    def age(self) -> int:
        """The version, whether deleted or not: the greater, the newer."""
        return abs(self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Info(Entry):
    """What `get ?key` tells; of a deletion that only the tree tells of, size and time are 0."""

    size: int
    modified_s: int
    """Seconds since 1970, by the server's clock."""

    @property
    def rank(self) -> tuple[int, int, bool, int]:
        """Puts the newest last. Between equal versions the time decides, then anything that all see alike."""
        return self.age, self.modified_s, self.live, self.hash

    def of(self, value: bytes) -> bool:
        """Return whether `value` is the one that is told about."""
        return self.live and self.size == len(value) and self.hash == value_hash(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What lies below a path of the tree: folders by hex digit, or names."""

    folders: dict[str, tuple[int, int]]
    """Hash and count of what is in each."""
    names: dict[bytes, Entry]


class Server:
    """One Beansdb server. Safe to use from many threads; each takes a connection of its own.

    Every method raises `StoreFailed` when the server does not answer as it should; it is then `resting` for a while.
    The text does not name the server, which the public need not know; the log does.
    """

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._memcache = _pymemcache()
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._rests_until = 0.0

    def __repr__(self) -> str:
        return f"Server({self.address!r})"

    @property
    def resting(self) -> bool:
        """It failed a moment ago, and is asked only if there is no other."""
        return time.monotonic() < self._rests_until

    def look(self, name: bytes) -> Info | None:
        """Return what is known of a key; None when there is nothing. Older servers say nothing of deleted keys."""
        return self.look_at([name]).get(name)

    def look_at(self, names: Iterable[bytes]) -> dict[bytes, Info]:
        """Return what is known of several keys, in one question."""
        told = self._values([b"?" + name for name in names])
        try:
            return {asked[1:]: _info(text) for asked, (text, _) in told.items()}
        except ValueError as error:
            raise self._failed(error) from error

    def buried(self, name: bytes) -> Info | None:
        """Return the deletion of a key as the tree knows it; every server's tree does."""
        entry = self.listing(f"{fnv1a(name):08x}").names.get(name)
        return Info(version=entry.version, hash=0, size=0, modified_s=0) if entry and not entry.live else None

    def get(self, name: bytes) -> tuple[bytes, int] | None:
        """Return a value and its flags."""
        return self._values([name]).get(name)

    def set(self, name: bytes, value: bytes, *, version: int, flags: int = 0) -> bool:
        """Store a value at `version`, which is never 0; return False when the server has this version or a newer one.

        A negative version deletes; the value is empty then, and a server that has nothing refuses.
        """
        assert version, "0 lets each server count for itself"
        return bool(self._call(lambda c: c.set(name, value, expire=version, flags=flags & ~_COMPRESSED)))

    def listing(self, path: str, prefix: bytes = b"") -> Listing:
        """Return what lies below `path`, the first hex digits of keys' hashes.

        With `prefix` the server leaves out other names, though not all of them where there are very many.
        """
        asked = f"@{path}".encode() + (b":" + prefix if prefix else b"")[:_FILTER_BYTES]
        text, _ = self._values([asked]).get(asked, (b"", 0))
        folders, names = {}, {}
        try:
            for line in text.splitlines():
                first, second, third = line.rsplit(b" ", 2)
                if first.endswith(b"/"):
                    folders[first[:-1].decode()] = int(second), int(third)
                else:
                    names[first] = Entry(hash=int(second), version=int(third))
        except ValueError as error:
            raise self._failed(error) from error
        return Listing(folders=folders, names=names)

    def walk(self, path: str, prefix: bytes = b"") -> dict[bytes, Entry]:
        """Return all names below `path`, or those that begin with `prefix`."""
        listing = self.listing(path, prefix)
        found = {name: entry for name, entry in listing.names.items() if name.startswith(prefix)}
        if len(path) < PATH_DIGITS:
            for digit in listing.folders:
                found |= self.walk(path + digit, prefix)
        return found

    def stats(self) -> None:
        """Ask for a sign of life."""
        self._call(lambda c: c.stats())

    def close(self) -> None:
        """Close the connections that are not at work."""
        while (client := self._take_idle()) is not None:
            client.close()

    def _values(self, names: list[bytes]) -> dict[bytes, tuple[bytes, int]]:
        found: dict[bytes, tuple[bytes, int]] = self._call(lambda c: c.get_many(names))
        return found

    def _call(self, ask: Callable[[Any], T]) -> T:
        """Ask on a connection. One that lay idle may have been closed by the server's restart: then on a new one."""
        while True:
            idle = self._take_idle()
            client = idle or self._connection()
            try:
                answer = ask(client)
            except (self._memcache.MemcacheUnexpectedCloseError, ConnectionError) as error:
                client.close()
                if idle is None:
                    raise self._failed(error) from error
                self.close()
            except self._memcache.MemcacheClientError as error:  # the question was wrong, the server is well
                client.close()
                raise StoreFailed("A Beansdb server refused a request") from error
            except (self._memcache.MemcacheError, OSError, ValueError, KeyError) as error:
                client.close()
                raise self._failed(error) from error
            except BaseException:
                client.close()
                raise
            else:
                with self._lock:
                    self._idle.append(client)
                return answer

    def _take_idle(self) -> Any:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connection(self) -> Any:
        return self._memcache.Client(
            self.address,
            connect_timeout=self._timeout_s,
            timeout=self._timeout_s,
            no_delay=True,
            default_noreply=False,
            serde=_Raw(),
        )

    def _failed(self, error: Exception) -> StoreFailed:
        if not self.resting:
            log.warning("Beansdb server %s: %s; left alone for %g s", self.address, _said(error), REST_S)
        self._rests_until = time.monotonic() + REST_S
        return StoreFailed("A Beansdb server does not answer")


class _Raw:
    """Values as they are stored, with their flags."""

    def serialize(self, _: bytes, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def deserialize(self, _: bytes, value: bytes, flags: int) -> tuple[bytes, int]:
        return value, flags


def _info(text: bytes) -> Info:
    version, digest, _, size, modified, *_ = (int(field) for field in text.split())
    return Info(version=version, hash=digest, size=size, modified_s=modified)


def _said(error: Exception) -> str:
    """Return what is wrong, without the address and without anything of a value."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or type(error).__name__


def _pymemcache() -> Any:
    try:
        import pymemcache
    except ImportError as error:
        raise SettingsError("Beansdb needs the package pymemcache: pip install 'lazypix[beansdb]'") from error
    return pymemcache
