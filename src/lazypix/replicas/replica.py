"""One replica: blobs are put there, read back and hashed; what is there is removed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lazypix.catalog.values import StoredVariant
from lazypix.errors import BlobMissing, StoreFailed
from lazypix.replicas.layout import Layout, OwnKeys, What, keys_of
from lazypix.stores import BlobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A store that receives what the library's has. Safe to use from many threads; its library closes it."""

    name: str
    store: BlobStore
    what: What = "all"
    layout: Layout = field(default_factory=OwnKeys)

    def put(self, key: str, source: Path, sha256: str) -> None:
        """Store a blob, and make sure that it is there as it was sent. The file may be gone afterwards.

        Raises:
            StoreFailed, StoreFull: it could not be stored, or others bytes came back.
        """
        self.store.put(key, source)
        found = self.sha256(key)
        if found != sha256:
            raise StoreFailed(f"{key} came back from replica {self.name} with other bytes than were put there")

    def size(self, key: str) -> int | None:
        """Return the bytes of a blob; None: it is not there."""
        try:
            return self.store.head(key).size
        except BlobMissing:
            return None

    def sha256(self, key: str) -> str | None:
        """Read a blob and return its hash; None: it is not there."""
        digest = hashlib.sha256()
        try:
            for piece in self.store.read(key):
                digest.update(piece)
        except BlobMissing:
            return None
        return digest.hexdigest()

    def remove(self, ident: str, variants: Sequence[StoredVariant]) -> None:
        """Remove all blobs of an image that had these variants. Twice does no harm.

        Raises:
            StoreFailed: some of them may be there still; also where a folder is not there at all, which may only not
                be mounted now.
        """
        self._check_mounted()
        folder = self.layout.folder(ident)
        if folder is not None and self.store.capabilities.lists_prefixes:
            self.store.delete_prefix(folder)
            return
        for key in sorted(keys_of(self.layout, ident, variants)):
            self.store.delete(key)

    def remove_key(self, key: str) -> None:
        """Remove one blob, if it is there. Errors: as `remove`."""
        self._check_mounted()
        self.store.delete(key)

    def _check_mounted(self) -> None:
        if self.store.capabilities.lists_prefixes and self.store.local_path("x") is not None:
            self.store.check()
