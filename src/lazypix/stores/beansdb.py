"""Several Beansdb servers as a store: every blob on N of them, and whole again after one was away."""

from __future__ import annotations

import builtins
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lazypix.errors import BlobExists, BlobMissing, SettingsError, StoreFailed, TooLarge
from lazypix.stores import Blob, Capabilities, RepairReport, UploadAddress, check_key, pieces_of
from lazypix.stores.beansdb_protocol import (
    BUCKETS,
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    Entry,
    Info,
    Server,
    bucket_of,
    escape,
    fnv1a,
    unescape,
)
from lazypix.stores.beansdb_repair import Repair

ATTEMPTS = 10
"""How often a write or a read begins anew because somebody else changed the blob meanwhile."""
_ASKED_AT_ONCE = 64
_LOCKS = 64
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)

T = TypeVar("T")


class BeansdbStore:
    """Keeps each blob under its escaped key on `copies` of the servers, as it is.

    The hash of a key leads to one of 16 buckets, and each bucket is served by the same servers for as long as the
    list of servers stays the same. A `put` goes to all of them, one version above the highest that is known, and
    `writes` have to take it. A `get` asks all that answer for their version, reads the newest, and gives it to those
    that lack it; `reads` have to answer before a blob is said to be missing. What a server missed while it was away
    is brought to it by reading, and in the end by `repair`.

    A server that fails is left alone for a few seconds, unless there are too few others.

    There is no `add` in Beansdb: `create` looks first. All writers go through the servers in the same order, so that
    the first server decides between two at once; only if it is away for one of them both may succeed.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        writes: int | None = None,
        reads: int | None = None,
        copies: int | None = None,
        prefix: str = "",
        timeout_s: float = 5.0,
    ) -> None:
        copies = len(servers) if copies is None else copies
        writes = min(2, copies) if writes is None else writes
        reads = 1 if reads is None else reads
        _check_settings(servers, copies, writes, reads, timeout_s)
        self._servers = [Server(address, timeout_s=timeout_s) for address in servers]
        self._copies, self._writes, self._reads = copies, writes, reads
        self._prefix = _checked_prefix(prefix)
        # Threads of this process wait for each other, so that they do not outbid each other's versions.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def __repr__(self) -> str:
        return f"BeansdbStore({[server.address for server in self._servers]!r}, prefix={self._prefix!r})"

    @property
    def capabilities(self) -> Capabilities:
        longest = MAX_NAME_BYTES - len(escape(self._prefix))
        return Capabilities(creates_once=False, reads_ranges=False, lists_prefixes=False, longest_key=longest)

    def create(self, key: str, source: bytes | Path) -> None:
        self._write(key, source, replace=False)

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:  # noqa: ARG002
        self._write(key, source, replace=True)

    def get(self, key: str) -> bytes:
        name = self._name(key)
        for _ in range(ATTEMPTS):
            known = self._known(name, needed=self._reads) if name else {}
            newest = _newest(known)
            if newest is None or not newest.live:
                if newest is not None:
                    _heal(name, (b"", 0), newest, known)
                raise BlobMissing(f"There is no blob under {key}")
            found = _fetch(name, [server for server, info in known.items() if _same(info, newest)])
            if found is not None:
                if newest.of(found[0]):  # else it was replaced since we asked
                    _heal(name, found, newest, known)
                return found[0]
        raise StoreFailed(f"{key} changes too often to be read")

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from pieces_of(self.get(key), start, length)

    def head(self, key: str) -> Blob:
        name = self._name(key)
        newest = _newest(self._known(name, needed=self._reads)) if name else None
        if newest is None or not newest.live:
            raise BlobMissing(f"There is no blob under {key}")
        return _blob(key, newest)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def url(self, key: str, *, expires_s: int | None) -> str | None:  # noqa: ARG002
        check_key(key)
        return None

    def upload_address(self, key: str, *, expires_s: int) -> UploadAddress | None:  # noqa: ARG002
        check_key(key)
        return None

    def list(self, prefix: str = "") -> Iterator[Blob]:
        found = self._listed(prefix)
        keys = iter(sorted(found))
        while batch := list(islice(keys, _ASKED_AT_ONCE)):
            yield from self._described({key: found[key] for key in batch})

    def delete(self, key: str) -> bool:
        name = self._name(key)
        if not name:
            return False
        with self._lock_of(name):
            known = self._known(name, needed=self._writes)
            newest = _newest(known)
            if newest is None:
                return False
            if not newest.live:
                _heal(name, (b"", 0), newest, known)
                return False
            version = -newest.age - 1
            # One that refuses has nothing, or something newer.
            self._ask(self._group(name), self._writes, lambda s: s.set(name, b"", version=version))
            return True

    def delete_prefix(self, prefix: str) -> int:
        check_key(prefix.rstrip("/"))
        return sum(self.delete(key) for key in self._listed(prefix))

    def check(self) -> None:
        for group in {frozenset(self._group_of(bucket)) for bucket in range(BUCKETS)}:
            self._ask([server for server in self._servers if server in group], self._writes, Server.stats)

    def sweep(self, *, older_than_s: float) -> int:  # noqa: ARG002
        return 0

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def repair(self, progress: Callable[[int, int], None] | None = None) -> RepairReport:
        """Make the servers' contents the same: copy what is missing or older, delete what was deleted elsewhere.

        Compares the hash trees, and looks closer only where they differ; everything on the servers is meant, whatever
        its prefix. May run while the store is at work, be broken off, and be run again: what is done is done.
        `progress` is called with how many of how many buckets are done.
        """
        repair = Repair()
        for bucket in range(BUCKETS):
            repair.bucket(f"{bucket:x}", self._group_of(bucket))
            if progress is not None:
                progress(bucket + 1, BUCKETS)
        return repair.report

    # --- which servers -----------------------------------------------------------------------------------------

    def _name(self, key: str) -> bytes:
        """Return the name of a key, empty for one that is too long to have any."""
        name = escape(self._prefix + check_key(key))
        return name if len(name) <= MAX_NAME_BYTES else b""

    def _group_of(self, bucket: int) -> builtins.list[Server]:
        count = len(self._servers)
        return [self._servers[(bucket + copy) % count] for copy in range(self._copies)]

    def _group(self, name: bytes) -> builtins.list[Server]:
        return self._group_of(bucket_of(name))

    def _lock_of(self, name: bytes) -> threading.Lock:
        return self._locks[fnv1a(name) % _LOCKS]

    def _ask(self, servers: Sequence[Server], needed: int, question: Callable[[Server], T]) -> dict[Server, T]:
        """Ask servers in order, those that rest last and only while answers are `needed`.

        Raises:
            StoreFailed: fewer answered.
        """
        answers: dict[Server, T] = {}
        trouble: StoreFailed | None = None
        resting = {server for server in servers if server.resting}
        for server in sorted(servers, key=lambda s: s in resting):
            if server in resting and len(answers) >= needed:
                break
            try:
                answers[server] = question(server)
            except StoreFailed as error:
                trouble = error
        if len(answers) < needed:
            raise StoreFailed(
                f"{len(answers)} of {len(servers)} Beansdb servers answered, {needed} are needed"
            ) from trouble
        return answers

    # --- one blob ----------------------------------------------------------------------------------------------

    def _known(self, name: bytes, *, needed: int, thoroughly: bool = False) -> dict[Server, Info | None]:
        """Return what each server that answers knows of a name.

        Not every server tells of deleted keys when asked for one. So where they disagree whether there is something,
        those that told nothing are asked again by their trees.
        """
        known = self._ask(self._group(name), needed, lambda s: s.look(name))
        silent = [server for server, info in known.items() if info is None]
        if thoroughly or 0 < len(silent) < len(known):
            for server in silent:
                with suppress(StoreFailed):
                    known[server] = server.buried(name)
        return known

    def _write(self, key: str, source: bytes | Path, *, replace: bool) -> None:
        name = self._name(key)
        if not name:
            raise StoreFailed(f"Key {key} is too long for Beansdb: at most {MAX_NAME_BYTES} bytes, escaped")
        body = _body(key, source)
        with self._lock_of(name):
            for attempt in range(ATTEMPTS):
                newest = _newest(self._known(name, needed=self._writes, thoroughly=attempt > 0))
                if newest is not None and newest.live and not replace:
                    raise BlobExists(f"There is already a blob under {key}")
                with suppress(_Overtaken):
                    self._offer(name, body, version=newest.age + 1 if newest is not None else 1)
                    return
        raise StoreFailed(f"{key} is written by too many at once")

    def _offer(self, name: bytes, body: bytes, *, version: int) -> None:
        """Give a blob to all its servers at this version.

        Raises:
            _Overtaken: somebody else's has this version or a higher one by now.
            StoreFailed: too few servers took it; those that did keep it.
        """

        def give(server: Server) -> None:
            if server.set(name, body, version=version):
                return
            there = server.look(name) or server.buried(name)
            if there is None or there.age < version:
                raise StoreFailed("A Beansdb server does not take the blob")
            if there.age > version or not there.of(body):  # else it is ours: the answer to a first attempt was lost
                raise _Overtaken

        self._ask(self._group(name), self._writes, give)

    # --- many --------------------------------------------------------------------------------------------------

    def _listed(self, prefix: str) -> dict[str, builtins.list[Server]]:
        """Return all keys that are there, each with the servers that have its newest version."""
        found = {}
        start = escape(self._prefix + prefix)
        for bucket in range(BUCKETS):
            for name, entries in self._walked(bucket, start):
                key = self._key(name)
                newest = max(entries.values(), key=lambda entry: (entry.age, entry.live))
                if newest.live and key is not None and key.startswith(prefix):
                    found[key] = [server for server, entry in entries.items() if entry.version == newest.version]
        return found

    def _walked(self, bucket: int, start: bytes) -> Iterator[tuple[bytes, dict[Server, Entry]]]:
        """Yield all names in a bucket that begin with `start`, with what each server that has it knows of it."""
        walked = self._ask(self._group_of(bucket), self._reads, lambda server: server.walk(f"{bucket:x}", start))
        for name in {name for names in walked.values() for name in names}:
            yield name, {server: names[name] for server, names in walked.items() if name in names}

    def _key(self, name: bytes) -> str | None:
        """Return the key that has this name; None for what others have stored."""
        key = unescape(name)
        if key is None or not key.startswith(self._prefix):
            return None
        with suppress(ValueError):
            return check_key(key.removeprefix(self._prefix))
        return None

    def _described(self, found: Mapping[str, Sequence[Server]]) -> Iterator[Blob]:
        """Yield the blobs of these keys; what was deleted since is left out."""
        told: dict[str, Info] = {}
        for server in {holders[0] for holders in found.values()}:
            names = {self._name(key): key for key, holders in found.items() if holders[0] is server}
            with suppress(StoreFailed):
                told |= {names[name]: info for name, info in server.look_at(names).items()}
        for key in found:
            info = told.get(key)
            try:
                blob = _blob(key, info) if info is not None and info.live else self.head(key)
            except BlobMissing:
                continue
            yield blob


class _Overtaken(Exception):
    """Somebody else has written meanwhile."""


def _check_settings(servers: Sequence[str], copies: int, writes: int, reads: int, timeout_s: float) -> None:
    ports = [_ADDRESS.fullmatch(address) for address in servers]
    wrong = [number for number, port in enumerate(ports, 1) if port is None or not 0 < int(port[1]) < 65536]
    faults = [f"server {number} is not host:port" for number in wrong]
    if not servers:
        faults.append("there are no servers")
    if len(set(servers)) < len(servers):
        faults.append("a server is named twice")
    if not 1 <= copies <= len(servers):
        faults.append(f"copies is {copies}; accepted: 1 to the number of servers, {len(servers)}")
    faults += [
        f"{word} is {count}; accepted: 1 to copies, {copies}"
        for word, count in (("writes", writes), ("reads", reads))
        if not 1 <= count <= copies
    ]
    if timeout_s <= 0:
        faults.append("timeout_s must be above 0")
    if faults:
        raise SettingsError(f"Beansdb: {'; '.join(faults)}")


def _checked_prefix(prefix: str) -> str:
    """Return a prefix as it stands before keys: with a slash at its end, if there is one at all."""
    prefix = prefix.strip("/")
    if not prefix:
        return ""
    try:
        longest = MAX_NAME_BYTES - len(escape(check_key(prefix)))
    except ValueError as error:
        raise SettingsError(f"Beansdb: the prefix is a {error}") from None
    if longest < MAX_NAME_BYTES // 2:
        raise SettingsError(f"Beansdb: the prefix leaves {longest} bytes for keys; at least half of 249 are needed")
    return f"{prefix}/"


def _body(key: str, source: bytes | Path) -> bytes:
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > MAX_VALUE_BYTES:
            raise TooLarge(f"{key} has {size} bytes; Beansdb takes at most {MAX_VALUE_BYTES}")
        return source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise StoreFailed(f"Could not read what is to be stored under {key} ({error.strerror})") from error


def _newest(known: Mapping[Server, Info | None]) -> Info | None:
    return max((info for info in known.values() if info is not None), key=lambda info: info.rank, default=None)


def _same(info: Info | None, other: Info) -> bool:
    return info is not None and (info.version, info.hash) == (other.version, other.hash)


def _heal(name: bytes, found: tuple[bytes, int], newest: Info, known: Mapping[Server, Info | None]) -> None:
    """Give the newest version, or deletion, to the servers that have an older one or none.

    At the same version: a server that has something newer by now refuses. Without success nothing is lost.
    """
    value, flags = found
    for server, info in known.items():
        behind = newest.live if info is None else info.age < newest.age
        if behind and not server.resting:
            with suppress(StoreFailed):
                server.set(name, value, version=newest.version, flags=flags)


def _fetch(name: bytes, holders: Sequence[Server]) -> tuple[bytes, int] | None:
    """Return value and flags from the first of `holders` that answers; None when it has none any more."""
    for holder in holders:
        with suppress(StoreFailed):
            return holder.get(name)
    raise StoreFailed("The Beansdb servers that have the blob do not answer")


def _blob(key: str, info: Info) -> Blob:
    return Blob(key=key, size=info.size, modified=datetime.fromtimestamp(info.modified_s, UTC))
