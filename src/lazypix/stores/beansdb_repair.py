"""Makes the contents of several Beansdb servers the same, by comparing their hash trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lazypix.errors import StoreFailed
from lazypix.stores import RepairReport
from lazypix.stores.beansdb_protocol import PATH_DIGITS, Entry, Info, Listing, Server, value_hash


class Repair:
    """One run over the trees of several servers. A server that fails is left out from then on."""

    def __init__(self) -> None:
        self.report = RepairReport()
        self._lost: set[Server] = set()

    def bucket(self, digit: str, servers: Sequence[Server]) -> None:
        """Make one of the sixteen buckets the same, on those of `servers` that answer."""
        tops = dict(self._listings("", servers))
        if len(tops) > 1 and not _all_equal(listing.folders.get(digit) for listing in tops.values()):
            self._compare(digit, list(tops))

    def _compare(self, path: str, servers: Sequence[Server]) -> None:
        listings = dict(self._listings(path, servers))
        if len(listings) < 2 or _all_equal(listings.values()):
            return
        there = list(listings)
        if len(path) < PATH_DIGITS and any(listing.folders for listing in listings.values()):
            # A server whose part is still small lists keys where another has folders. It does so below, too.
            for digit in "0123456789abcdef":
                folders = [listing.folders.get(digit) for listing in listings.values()]
                if None in folders or not _all_equal(folders):
                    self._compare(path + digit, there)
            return
        for name in sorted({name for listing in listings.values() for name in listing.names}):
            self._settle(name, {server: listing.names.get(name) for server, listing in listings.items()})

    def _listings(self, path: str, servers: Sequence[Server]) -> Iterator[tuple[Server, Listing]]:
        for server in servers:
            if server in self._lost:
                continue
            try:
                yield server, server.listing(path)
            except StoreFailed:
                self._lost.add(server)
                self._count(failed=1)

    def _settle(self, name: bytes, entries: Mapping[Server, Entry | None]) -> None:
        """Bring the newest of `entries` to all servers."""
        self._count(compared=1)
        if _all_equal(entries.values()):
            return
        age = max(entry.age for entry in entries.values() if entry is not None)
        rivals = {server: entry for server, entry in entries.items() if entry is not None and entry.age == age}
        try:
            if _all_equal(rivals.values()):
                holder, version = next(iter(rivals)), age
            else:
                holder, version = _newest_of(name, rivals), age + 1
            newest = rivals[holder]
            stored = holder.get(name) if newest.live else (b"", 0)
        except StoreFailed:
            self._count(failed=1)
            self._lost |= {server for server in rivals if server.resting}
            return
        if stored is None or (newest.live and value_hash(stored[0]) != newest.hash):
            self._count(failed=1)  # changed since it was listed, or broken
            return
        for server, entry in entries.items():
            if server not in self._lost and (entry is None or entry.age < version):
                self._give(server, name, stored, version if newest.live else -version, entry)

    def _give(
        self, server: Server, name: bytes, stored: tuple[bytes, int], version: int, entry: Entry | None
    ) -> None:
        if version < 0 and (entry is None or not entry.live):
            return  # there is nothing to delete
        try:
            taken = server.set(name, stored[0], version=version, flags=stored[1])
        except StoreFailed:
            self._count(failed=1)
            self._lost |= {server} if server.resting else set()
            return
        if taken:  # else it has something newer by now
            self._count(copied=version > 0, deleted=version < 0)

    def _count(self, *, compared: int = 0, copied: int = 0, deleted: int = 0, failed: int = 0) -> None:
        was = self.report
        self.report = replace(
            was,
            compared=was.compared + compared,
            copied=was.copied + copied,
            deleted=was.deleted + deleted,
            failed=was.failed + failed,
        )


def _newest_of(name: bytes, rivals: Mapping[Server, Entry]) -> Server:
    """Return the server with the newest of several changes that have the same version."""

    def rank(server: Server) -> tuple[int, int, bool, int]:
        entry = rivals[server]
        info = server.look(name) or Info(version=entry.version, hash=entry.hash, size=0, modified_s=0)
        return info.rank

    return max(rivals, key=rank)


def _all_equal(values: Iterable[object]) -> bool:
    first, *rest = values
    return all(value == first for value in rest)
