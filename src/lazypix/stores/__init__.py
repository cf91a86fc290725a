"""Stores keep blobs by key. `BlobStore` is the contract; every implementation passes `tests/contracts`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What a store knows of a blob without reading it."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""


class BlobStore(Protocol):
    """Keeps blobs by key. Safe to use from many threads and processes at once.

    A key is one or more segments joined by `/`; no segment is empty, begins with a dot, or holds a control
    character. A blob appears whole or not at all, and what was acknowledged survives a power cut.

    Every method raises `StoreFailed` when the store cannot do its work, and `ValueError` for a malformed key
    (a programmer's mistake: idents are checked long before).
    """

    def create(self, key: str, source: bytes | Path) -> None:
        """Store a new blob. Of several writers at once exactly one succeeds.

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

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """Yield the blobs whose keys begin with `prefix` (empty, or ending in `/`), in the order of their keys."""
        ...

    def delete(self, key: str) -> bool:
        """Remove the blob; return whether there was one."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Remove all blobs under `prefix`, which ends in `/`; return how many there were."""
        ...


def check_key(key: str) -> str:
    """Return `key` unchanged when it is well formed, as `BlobStore` says.

    Raises:
        ValueError: it is not.
    """
    segments = key.split("/")
    if any(not s or s.startswith(".") or len(s.encode()) > 255 or not s.isprintable() for s in segments):
        raise ValueError(f"malformed key {key!r}")
    return key
