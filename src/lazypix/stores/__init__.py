"""Stores keep blobs by key. `BlobStore` is the contract; every implementation passes `tests/contracts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

PIECE_BYTES = 1024 * 1024
"""How much of a blob is held in memory at once while it is read in pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What a store knows of a blob without reading it."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do, as found out when it was opened."""

    creates_once: bool = True
    """Of several `create` at once exactly one succeeds. Without it a late one may replace an earlier one's blob:
    the catalog's claim, which comes first, is then the only guard."""
    reads_ranges: bool = True
    """A part of a blob is read without reading what stands before it."""
    lists_prefixes: bool = True
    """`list` and `delete_prefix` cost what they find; without it they walk over everything there is."""
    lists_in_order: bool = True
    """`list` yields all blobs in the order of their keys; without it, only those of one folder together."""
    takes_uploads: bool = False
    """Clients may put blobs themselves, at an `upload_address`."""
    longest_key: int | None = None
    """Bytes of the longest key it takes, those it has to escape counting more; None: whatever is well formed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadAddress:
    """Where, and how, a client puts a blob itself: by the method PUT, with these headers besides its own."""

    url: str = field(repr=False)
    """Who has it may write."""
    headers: Mapping[str, str] = field(default_factory=dict)


class BlobStore(Protocol):
    """Keeps blobs by key. Safe to use from many threads and processes at once.

    A key is one or more segments joined by `/`; no segment is empty, begins with a dot, or holds a backslash or a
    control character. A blob appears whole or not at all, and what was acknowledged survives a power cut. Stores that
    keep a content type derive it from the key's extension.

    Every method raises `StoreFailed` when the store cannot do its work, and `ValueError` for a malformed key
    (a programmer's mistake: idents are checked long before). No error and no `repr` holds a secret.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do."""
        ...

    def create(self, key: str, source: bytes | Path) -> None:
        """Store a new blob. Of several writers at once exactly one succeeds, if `capabilities` say so.

        A `Path` is a finished file that the store may take over (it is gone afterwards) or copy.

        Raises:
            BlobExists: there is a blob under this key; it is untouched.
            StoreFull: no space left; nothing was stored.
        """
        ...

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
        """Store a blob, replacing one that is there; readers see the old one or the new one.

        With `durable=False` a power cut may lose it again, as a whole: for what can be made anew.

        Raises:
            StoreFull: no space left; what was there is untouched.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return the whole blob.

        Raises:
            BlobMissing: there is none.
        """
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start`, `length` of them or all, in pieces of about `PIECE_BYTES`.

        What lies behind the end is not there: no error, only fewer bytes.

        Raises:
            BlobMissing: there is none; raised with the first piece at the latest.
        """
        ...

    def head(self, key: str) -> Blob:
        """Return size and time of the blob.

        Raises:
            BlobMissing: there is none.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """Return a file that holds the blob, to be read only; None when this store has no files.

        Whether the blob exists is not checked.
        """
        ...

    def url(self, key: str, *, expires_s: int | None) -> str | None:
        """Return an address at which a client gets the blob from the store itself; None when there is none.

        With `expires_s` it is signed, and good for that many seconds; without, it is the public one. Whether the blob
        exists is not checked.
        """
        ...

    def upload_address(self, key: str, *, expires_s: int) -> UploadAddress | None:
        """Return where a client may put the blob itself, for so many seconds; None when `capabilities` say no.

        It replaces a blob that is there, and how many bytes it puts is not bounded: the key must be one of nothing
        that matters, and what came has to be looked at.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """Yield the blobs whose keys begin with `prefix` (empty, or ending in `/`), in the order of their keys.

        Page by page, however many there are; see `Capabilities.lists_in_order`.
        """
        ...

    def delete(self, key: str) -> bool:
        """Remove the blob; return whether there was one (as far as the store can tell: if in doubt, True)."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Remove all blobs under `prefix`, which ends in `/`; return how many there were."""
        ...

    def check(self) -> None:
        """Ask for a sign of life: that blobs could be read and written now.

        Raises:
            StoreFailed: they could not.
        """
        ...

    def sweep(self, *, older_than_s: float) -> int:
        """Remove what killed processes left half done, if it is this old; return how many things."""
        ...

    def close(self) -> None:
        """Give connections back. A second time does nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair did."""

    compared: int = 0
    """Keys that were looked at: those in parts of the trees that differ."""
    copied: int = 0
    """Values that were given to a server which lacked them or had older ones."""
    deleted: int = 0
    """Values that were deleted from a server because they were deleted elsewhere."""
    failed: int = 0
    """What a server did not list, give or take. Repair again when it is well."""


@runtime_checkable
class Repairable(Protocol):
    """A store of several servers, which can come to differ."""

    def repair(self, progress: Callable[[int, int], None] | None = None) -> RepairReport:
        """Make the servers' contents the same; `progress` is told how many of how many steps are done."""
        ...


def check_key(key: str) -> str:
    """Return `key` unchanged when it is well formed, as `BlobStore` says.

    Raises:
        ValueError: it is not.
    """
    segments = key.split("/")
    if any(not s or s[0] == "." or "\\" in s or len(s.encode()) > 255 or not s.isprintable() for s in segments):
        raise ValueError(f"malformed key {key!r}")
    return key


def pieces_of(body: bytes, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield a part of a body that is in memory as `BlobStore.read` does."""
    stop = len(body) if length is None else min(len(body), start + length)
    for begin in range(start, stop, PIECE_BYTES):
        yield body[begin : min(stop, begin + PIECE_BYTES)]
