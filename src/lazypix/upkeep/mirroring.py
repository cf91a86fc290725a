"""What of an image a replica has to have: put there, compared, repaired."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from lazypix.catalog import DELETED, Image, State, StoredVariant
from lazypix.catalog.job_values import JobState
from lazypix.errors import BlobMissing, LazypixError, TooLarge
from lazypix.formats import by_name
from lazypix.library import Library
from lazypix.orders import replicate
from lazypix.replicas.layout import keys_of, shared_out
from lazypix.replicas.replica import Replica
from lazypix.stores import Blob

log = logging.getLogger("lazypix")
T = TypeVar("T")

_AT_ONCE = 500
_TRIES = 5
_UNDONE: tuple[JobState, ...] = ("waiting", "later", "held", "running")


class NotCopied(LazypixError):
    """What is to be copied is not there, or not now; the replica is not to blame, and does not rest."""


class Mirror:
    """A library and one of its replicas. Safe to use from many threads and processes."""

    def __init__(self, library: Library, replica: Replica) -> None:
        self._library = library
        self.replica = replica

    def put_original(self, image: Image, *, anew: bool = False) -> None:
        """Put an original; unless `anew`, one of its size that is there stays.

        Raises:
            NotCopied: the library does not have it as it was stored.
            StoreFailed, StoreFull: the replica is away, or full.
        """
        key = self.original_key(image)
        if not anew and self.replica.size(key) == image.size:
            return
        with self._copy(self._library.originals.key(image), image.size, image.sha256) as (path, sha256):
            self.replica.put(key, path, sha256)

    def bring_variant(self, ident: str, variant: StoredVariant) -> None:
        """Bring up to date what lies under a variant's key: put who has precedence there, remove what nobody has.

        The catalog is asked again afterwards: of two that do this at once, the last one sees what is so.

        Raises:
            StoreFailed, StoreFull: the replica is away, or full.
            NotCopied: it changes too often.
        """
        key = self.replica.layout.variant(ident, variant)
        if key is None:
            return
        chosen = self._chosen(ident, key)
        for _ in range(_TRIES):
            if chosen is None:
                self.replica.remove_key(key)
            else:
                self._put_chosen(ident, key, chosen)
            before, chosen = chosen, self._chosen(ident, key)
            if _same_blob(before, chosen):
                return
        raise NotCopied(f"What belongs under {key} changes too often")

    def lose_variant(self, ident: str, variant: StoredVariant) -> None:
        """Remove what lies under a variant's key if nobody has it; nothing is put.

        Raises:
            StoreFailed: the replica is away.
        """
        key = self.replica.layout.variant(ident, variant)
        if key is not None and self._chosen(ident, key) is None:
            self.replica.remove_key(key)

    def _chosen(self, ident: str, key: str) -> StoredVariant | None:
        """Return the variant that has to lie under a key by now."""
        return self.expected_variants(ident, self._library.catalog.variants.of(ident)).get(key)

    def _put_chosen(self, ident: str, key: str, chosen: StoredVariant) -> None:
        source = self._library.keys.folder(ident) + chosen.name
        try:
            with self._copy(source, chosen.size, chosen.sha256) as (path, sha256):
                self.replica.put(key, path, sha256)
        except NotCopied as error:
            log.info("a variant of %s is not replicated to %s: %s", ident, self.replica.name, error)

    def received(self, variants: Sequence[StoredVariant]) -> list[StoredVariant]:
        """Return those variants that the replica receives."""
        what = self.replica.what
        return [variant for variant in variants if what == "all" or (what == "named" and variant.named)]

    def expected_variants(self, ident: str, variants: Sequence[StoredVariant]) -> Mapping[str, StoredVariant]:
        """Return which of an image's variants has to lie under which key."""
        return shared_out(self.replica.layout, ident, self.received(variants))

    def original_key(self, image: Image) -> str:
        """Return the key of an original in the replica."""
        return self.replica.layout.original(image.ident, by_name(image.format).extension)

    def remove(self, ident: str, variants: Sequence[StoredVariant]) -> None:
        """Remove all blobs of an image that had these variants, and those that are recorded still."""
        self.replica.remove(ident, [*variants, *self._library.catalog.variants.of(ident)])

    def is_deleted(self, ident: str) -> bool:
        """Tell whether an image is deleted for good."""
        return self._library.catalog.states([ident]).get(ident) in DELETED

    @contextmanager
    def _copy(self, key: str, size: int, sha256: str | None) -> Iterator[tuple[Path, str]]:
        """Give a file with a blob of the library's store, and its hash."""
        with self._library.incoming.new(max_bytes=size) as file:
            try:
                for piece in self._library.store.read(key):
                    file.write(piece)
            except (BlobMissing, TooLarge) as error:
                raise NotCopied(f"{key} is not in the store as it was stored ({type(error).__name__})") from None
            file.finish()
            if file.size != size or sha256 not in (None, file.sha256):
                raise NotCopied(f"{key} does not have the bytes that were stored")
            yield file.path, file.sha256


# --- comparing --------------------------------------------------------------------------------------------------

Kind = Literal["missing", "different", "deleted", "waiting", "unknown"]
"""Not there; with other bytes; there although its image is deleted. No faults: a job will see to it; not ours."""
FAULTS: tuple[Kind, ...] = ("missing", "different", "deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One blob that is not as it should be."""

    kind: Kind
    key: str
    ident: str | None = None
    detail: str = ""


def compare(
    mirror: Mirror, library: Library, *, contents: bool = False, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Difference]:
    """Yield what differs between a library and a replica: sizes, and with `contents` all bytes are read.

    The replica is listed once, into a temporary file; memory does not grow. Both may be in use. `progress` is told
    how many images were looked at.
    """
    with closing(_Listing(mirror.replica.store.list())) as listing:
        comparing = _Comparing(mirror, library, listing, contents=contents)
        number = 0
        for entries in _batches(library.catalog.walk_all(states=("ready", "trashed"))):
            variants = library.catalog.variants.of_many([image.ident for image, _ in entries])
            for image, state in entries:
                yield from comparing.image(image, state, variants.get(image.ident, []))
            number += len(entries)
            progress(number)
        yield from comparing.left_over()


def repair(
    mirror: Mirror, library: Library, *, contents: bool = False, progress: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[Difference, str | None]]:
    """Put what is missing or different, and remove what is left of deleted images; yield each, and why it failed."""
    for difference in compare(mirror, library, contents=contents, progress=progress):
        if difference.kind not in FAULTS:
            continue
        try:
            _repair_one(mirror, library, difference)
        except LazypixError as error:
            yield difference, str(error)
        else:
            yield difference, None


def _repair_one(mirror: Mirror, library: Library, difference: Difference) -> None:
    assert difference.ident is not None
    if difference.kind == "deleted":
        mirror.replica.store.delete(difference.key)
        return
    image = library.catalog.get(difference.ident)
    variants = library.catalog.variants.of(image.ident)
    try:
        if difference.key == mirror.original_key(image):
            mirror.put_original(image, anew=True)
        elif (variant := mirror.expected_variants(image.ident, variants).get(difference.key)) is not None:
            mirror.bring_variant(image.ident, variant)
    finally:
        if mirror.is_deleted(image.ident):
            mirror.remove(image.ident, variants)


class _Comparing:
    def __init__(self, mirror: Mirror, library: Library, listing: _Listing, *, contents: bool) -> None:
        self._mirror = mirror
        self._library = library
        self._listing = listing
        self._contents = contents

    def image(self, image: Image, state: State, variants: Sequence[StoredVariant]) -> Iterator[Difference]:
        """Yield what is wrong with the copy of one image."""
        self._listing.forget(keys_of(self._mirror.replica.layout, image.ident, variants))
        if state != "ready":
            return
        expected: dict[str, tuple[int, str | None]] = {self._mirror.original_key(image): (image.size, image.sha256)}
        for key, variant in self._mirror.expected_variants(image.ident, variants).items():
            expected[key] = (variant.size, variant.sha256)
        for key, (size, sha256) in expected.items():
            found = self._fault(image.ident, key, size, sha256)
            if found is not None:
                yield found

    def left_over(self) -> Iterator[Difference]:
        """Yield what lies in the replica, and belongs to no image that is there."""
        layout = self._mirror.replica.layout
        for keys in _batches(self._listing.left()):
            owners = {key: layout.ident_of(key) for key in keys}
            states = self._library.catalog.states([ident for ident in owners.values() if ident is not None])
            for key, ident in owners.items():
                state = states.get(ident) if ident is not None else None
                if state is None:
                    yield Difference(kind="unknown", key=key, ident=ident)
                elif state in DELETED and ident is not None:
                    waits = self._waits(ident)
                    yield Difference(kind="waiting" if waits else "deleted", key=key, ident=ident, detail=waits)

    def _fault(self, ident: str, key: str, size: int, sha256: str | None) -> Difference | None:
        if self._listing.size(key) == size and not self._contents:
            return None
        there = self._mirror.replica.size(key)  # now: it may have come since the listing
        if there is None:
            kind, detail = "missing", ""
        elif there != size:
            kind, detail = "different", f"{there} bytes instead of {size}"
        elif self._contents and sha256 not in (None, self._mirror.replica.sha256(key)):
            kind, detail = "different", "other bytes"
        else:
            return None
        if self._library.catalog.states([ident]).get(ident) != "ready":
            return None  # deleted meanwhile
        if waits := self._waits(ident):
            return Difference(kind="waiting", key=key, ident=ident, detail=waits)
        return Difference(kind="missing" if kind == "missing" else "different", key=key, ident=ident, detail=detail)

    def _waits(self, ident: str) -> str:
        """Return the error of a job that will see to an image, or that there is one; empty: there is none."""
        jobs = self._library.catalog.jobs.find(kind=replicate(self._mirror.replica.name), ident=ident)
        undone = [job for job in jobs if job.state in _UNDONE]
        return (undone[0].error or "a job will see to it") if undone else ""


class _Listing:
    """What a replica has, in a temporary file: looked up by key, whatever the order in which it was listed."""

    def __init__(self, blobs: Iterable[Blob]) -> None:
        self._file = sqlite3.connect("")  # a file of SQLite's own, gone when it is closed
        self._file.execute("CREATE TABLE found (key TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID")
        self._file.executemany(
            "INSERT OR REPLACE INTO found VALUES (?, ?)", ((blob.key, blob.size) for blob in blobs)
        )
        self._file.execute("CREATE TABLE known (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def size(self, key: str) -> int | None:
        """Return the bytes of a blob that was listed."""
        row = self._file.execute("SELECT size FROM found WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row is not None else None

    def forget(self, keys: Iterable[str]) -> None:
        """Note whose these keys are, so that they are not left."""
        known = "INSERT OR IGNORE INTO known SELECT key FROM found WHERE key = ?"
        self._file.executemany(known, ((key,) for key in keys))

    def left(self) -> Iterator[str]:
        """Yield the keys that nobody knew."""
        rows = self._file.execute("SELECT key FROM found WHERE key NOT IN (SELECT key FROM known) ORDER BY key")
        return (str(row[0]) for row in rows)

    def close(self) -> None:
        self._file.close()


def _same_blob(one: StoredVariant | None, other: StoredVariant | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.name, one.size, one.sha256) == (other.name, other.size, other.sha256)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some
