"""Cleaning up: blobs that nobody knows, rows without a blob, and variants that are not wanted any more."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from lazypix.catalog import StoredVariant
from lazypix.errors import BadRequest, BlobMissing
from lazypix.library import Library
from lazypix.upkeep.verifying import Problem, unknown_blobs

_SPARED_S = 3600.0
_AT_ONCE = 200


@dataclass(slots=True, kw_only=True)
class Orphans:
    """What a garbage collection found, and removed if it was to."""

    blobs: list[Problem] = field(default_factory=list)
    """Blobs without a row: they go."""
    kept: list[Problem] = field(default_factory=list)
    """Blobs without a row that stay: foreign ones, young ones, and unknown images, which `reindex` can take in."""
    rows: list[str] = field(default_factory=list)
    """Keys of recorded variants that are not in the store: their rows go."""
    bytes: int = 0
    """Of `blobs`."""


def collect_garbage(
    library: Library, *, remove: bool = False, originals: bool = False, older_than_s: float = _SPARED_S
) -> Orphans:
    """Find orphans both ways; remove them only with `remove`.

    Blobs and rows younger than `older_than_s` are left alone: they may be under way. Images that the catalog does not
    know are removed only with `originals`: a lost catalog makes all of them look so. What is left of deleted images
    goes with the rest; what is not named by lazypix never goes.
    """
    found = Orphans()
    youngest = time.time() - older_than_s
    for problem in unknown_blobs(library):
        spared = problem.kind == "foreign blob" or (problem.kind == "unknown image" and not originals)
        if spared or _modified(library, problem.key) > youngest:
            found.kept.append(problem)
            continue
        found.blobs.append(problem)
        found.bytes += problem.size
        if remove:
            library.store.delete(problem.key)
    for ident, variant in _rows_without_blob(library, older_than_s):
        found.rows.append(library.keys.folder(ident) + variant.name)
        if remove:
            library.shelf.forget([(ident, variant)])
    return found


def _modified(library: Library, key: str) -> float:
    try:
        return library.store.head(key).modified.timestamp()
    except BlobMissing:
        return 0.0


def _rows_without_blob(library: Library, older_than_s: float) -> Iterator[tuple[str, StoredVariant]]:
    youngest = time.time() - older_than_s
    for ident, variant in library.catalog.variants.walk():
        if variant.created.timestamp() > youngest:
            continue
        try:
            library.store.head(library.keys.folder(ident) + variant.name)
        except BlobMissing:
            yield ident, variant


def purge(
    library: Library,
    *,
    ident: str | None = None,
    size: str | None = None,
    unused_for_s: float | None = None,
    everything: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Drop stored variants, which are made again when they are asked for; return how many, and their bytes.

    Of one image (`ident`), of one `size` (a canonical text, `*` stands for anything), those that nobody read for
    `unused_for_s` seconds; several conditions must all be true. What any process of any machine remembers of
    these images is forgotten too.

    Raises:
        BadRequest: there is no condition, and it shall not be `everything`.
        UnknownImage: there is no such image.
    """
    if ident is None and size is None and unused_for_s is None and not everything:
        raise BadRequest("Say which variants: of an image, of a size, not used for a time, or everything")
    if ident is not None:
        library.get(ident)
    rows = library.catalog.variants.walk(ident=ident, stem_like=size, unused_for_s=unused_for_s)
    number = bytes_ = 0
    while batch := list(itertools.islice(rows, _AT_ONCE)):
        number, bytes_ = number + len(batch), bytes_ + sum(variant.size for _, variant in batch)
        if not dry_run:
            library.shelf.remove(batch)
            library.originals.forget(*{ident for ident, _ in batch})
            for changed, rows_of_it in itertools.groupby(batch, key=itemgetter(0)):  # they come in order
                library.catalog.jobs.add(library.orders.purged(changed, [variant for _, variant in rows_of_it]))
        progress(number)
    return number, bytes_
