"""Blobs are read from a store into a file, and are what they should be, or are not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lazypix.catalog import Image, StoredVariant
from lazypix.errors import BlobMissing, OriginalDamaged, TooLarge
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.library import Library
from lazypix.stores import BlobStore


@contextmanager
def read_original(library: Library, image: Image, into: IncomingFolder) -> Iterator[Incoming]:
    """Give a file with an image's original while it is used.

    Raises:
        BlobMissing: it is not in the store.
        OriginalDamaged: it is not what was uploaded.
    """
    with _read(library, library.originals.key(image), image.size, image.sha256, into) as file:
        yield file


@contextmanager
def read_variant(library: Library, ident: str, variant: StoredVariant, into: IncomingFolder) -> Iterator[Incoming]:
    """Give a file with a stored variant while it is used.

    Raises:
        BlobMissing: it is not in the store.
        OriginalDamaged: it is not what was stored.
    """
    key = library.keys.folder(ident) + variant.name
    with _read(library, key, variant.size, variant.sha256, into) as file:
        yield file


@contextmanager
def _read(library: Library, key: str, size: int, sha256: str | None, into: IncomingFolder) -> Iterator[Incoming]:
    with into.new(max_bytes=size) as file:
        try:
            for piece in library.store.read(key):
                file.write(piece)
        except TooLarge:
            raise OriginalDamaged(f"{key} has more bytes than were stored") from None
        file.finish()
        if file.size != size or sha256 not in (None, file.sha256):
            raise OriginalDamaged(f"{key} does not have the bytes that were stored")
        yield file


def stored_variants(library: Library, ident: str) -> set[str]:
    """Return the names of those variants of an image that have both row and blob."""
    recorded = {variant.name for variant in library.catalog.variants.of(ident)}
    if not recorded:
        return recorded
    store, folder = library.store, library.keys.folder(ident)
    if store.capabilities.lists_prefixes:
        return recorded & {blob.key.removeprefix(folder) for blob in store.list(folder)}
    return {name for name in recorded if _has(store, folder + name)}


def _has(store: BlobStore, key: str) -> bool:
    try:
        store.head(key)
    except BlobMissing:
        return False
    return True
