"""The invariants of a library, checked: every row has its blob with the right bytes, every blob has its row."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lazypix.catalog import Image, StoredVariant
from lazypix.errors import BlobMissing
from lazypix.formats import READABLE, by_extension
from lazypix.keys import SIDECAR, Place
from lazypix.library import Library
from lazypix.stores import Blob, BlobStore
from lazypix.transform import Transform

FOLDERS_AT_ONCE = 500

Kind = Literal[
    "original missing", "original damaged", "variant missing", "variant damaged", "unknown image", "unknown variant",
    "deleted image", "foreign blob", "unknown piece",
]  # fmt: skip
"""What can be wrong. Of these, `variant missing` is harmless (it is made again), a `foreign blob` is not ours, and an
`unknown piece` was left of an upload in pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be."""

    kind: Kind
    key: str
    detail: str = ""
    size: int = 0
    """Bytes of the blob, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The blobs of one image, as they lie in the store."""

    ident: str
    blobs: tuple[tuple[str, Blob], ...]
    """Pairs of name and blob."""


def verify(
    library: Library, *, contents: bool = True, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Problem]:
    """Yield everything that is wrong; with `contents` all bytes are read and hashed, else only their number compared.

    What is under way, or was left by a killed process and waits for the sweeper, is not wrong. `progress` is told
    how many images were looked at.
    """
    number = 0
    for state in ("ready", "trashed"):
        for image in library.catalog.walk(state=state):
            problems = list(_check_image(library, image, contents=contents))
            if problems and library.catalog.states([image.ident]).get(image.ident) == state:
                yield from problems  # else it was deleted, or had back, meanwhile
            number += 1
            progress(number)
    yield from unknown_blobs(library)


def _check_image(library: Library, image: Image, *, contents: bool) -> Iterator[Problem]:
    key = library.originals.key(image)
    yield from _check_blob(library.store, "original", key, image.size, image.sha256 if contents else None)
    for variant in library.catalog.variants.of(image.ident):
        name = library.keys.folder(image.ident) + variant.name
        yield from _check_blob(library.store, "variant", name, variant.size, variant.sha256 if contents else None)


def _check_blob(
    store: BlobStore, what: Literal["original", "variant"], key: str, size: int, sha256: str | None
) -> Iterator[Problem]:
    try:
        found, digest = measure(store, key) if sha256 else (store.head(key).size, None)
    except BlobMissing:
        yield Problem(kind="original missing" if what == "original" else "variant missing", key=key)
        return
    kind: Kind = "original damaged" if what == "original" else "variant damaged"
    if found != size:
        yield Problem(kind=kind, key=key, detail=f"{found} bytes instead of {size}", size=found)
    elif digest != sha256:
        yield Problem(kind=kind, key=key, detail=f"SHA-256 {digest}", size=found)


def measure(store: BlobStore, key: str, pause: Callable[[int], None] = lambda _: None) -> tuple[int, str]:
    """Read a blob to its end; return its bytes' number and SHA-256. `pause` is told of each piece.

    Raises:
        BlobMissing: there is none.
    """
    digest, size = hashlib.sha256(), 0
    for piece in store.read(key):
        digest.update(piece)
        size += len(piece)
        pause(len(piece))
    return size, digest.hexdigest()


# --- blobs without a row ---------------------------------------------------------------------------------------


def unknown_blobs(library: Library) -> Iterator[Problem]:
    """Yield the blobs that no row knows."""
    places = ((library.keys.parse(blob.key), blob) for blob in library.store.list())
    for folders in _batched(_folders(places)):
        yield from _nobodys(library, [item for item in folders if isinstance(item, Blob)])
        yield from _unknown_in(library, [item for item in folders if isinstance(item, Folder)])


def _nobodys(library: Library, blobs: list[Blob]) -> Iterator[Problem]:
    """Yield the blobs of no image, but for the pieces of uploads that are under way, and what waits for a ticket."""
    blobs = [blob for blob in blobs if library.keys.staged_until(blob.key) is None]
    uploads = [library.keys.upload_of(blob.key) for blob in blobs]
    named = {upload for upload in uploads if upload is not None}
    known = library.catalog.uploads.known(named) if named else set()
    for blob, upload in zip(blobs, uploads, strict=True):
        if upload is None or upload not in known:
            yield Problem(kind="unknown piece" if upload else "foreign blob", key=blob.key, size=blob.size)


def _unknown_in(library: Library, folders: list[Folder]) -> Iterator[Problem]:
    idents = [folder.ident for folder in folders]
    states = library.catalog.states(idents)
    variants = library.catalog.variants.of_many(idents)
    for folder in folders:
        state = states.get(folder.ident)
        if state in ("pending", "withdrawn", "deleting"):
            continue  # under way, or to be swept
        for name, blob in folder.blobs:
            kind = _fault(name, state, variants.get(folder.ident, []))
            if kind is not None:
                yield Problem(kind=kind, key=blob.key, size=blob.size)


def _fault(name: str, state: str | None, variants: list[StoredVariant]) -> Kind | None:
    if not (is_original(name) or name == SIDECAR or variant_of(name)):
        return "foreign blob"
    if state is None:
        return "unknown image"
    if state in ("deleted", "gone"):
        return "deleted image"
    if is_original(name) or name == SIDECAR or any(variant.name == name for variant in variants):
        return None
    return "unknown variant"


def is_original(name: str) -> bool:
    """Tell whether this is the name of an original."""
    stem, _, extension = name.rpartition(".")
    found = by_extension(extension)
    return stem == "origin" and found is not None and found.name in READABLE


def variant_of(name: str) -> tuple[str, str] | None:
    """Return stem and format of a variant's name, or None when it is none."""
    stem, _, extension = name.rpartition(".")
    found = by_extension(extension)
    if found is None or not found.saves or found.extension != extension:
        return None
    try:
        transform = Transform.parse(stem)
    except ValueError:
        return None
    except Exception:  # noqa: BLE001  # whatever it is, it was not named by us
        return None
    return (stem, found.name) if transform.stem == stem else None


def folders_of(library: Library) -> Iterator[Folder]:
    """Yield the store's images with their blobs, one after the other."""
    places = ((library.keys.parse(blob.key), blob) for blob in library.store.list())
    yield from (item for item in _folders(places) if isinstance(item, Folder))


def _folders(places: Iterable[tuple[Place | None, Blob]]) -> Iterator[Folder | Blob]:
    """Group blobs by image; those that are nobody's come as they are."""
    for ident, group in itertools.groupby(places, key=lambda pair: pair[0].ident if pair[0] else None):
        if ident is None:
            yield from (blob for _, blob in group)
        else:
            yield Folder(ident=ident, blobs=tuple((place.name, blob) for place, blob in group if place))


def _batched(items: Iterable[Folder | Blob]) -> Iterator[list[Folder | Blob]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, FOLDERS_AT_ONCE)):
        yield batch
