"""Rebuilding the catalog from the store."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lazypix.catalog import Image, StoredVariant
from lazypix.errors import BlobMissing, LazypixError, OriginalDamaged
from lazypix.keys import SIDECAR
from lazypix.library import Library
from lazypix.stores import Blob
from lazypix.upkeep.verifying import Folder, folders_of, is_original, measure, variant_of

log = logging.getLogger("lazypix")


@dataclass(slots=True, kw_only=True)
class ReindexReport:
    """What was found in the store."""

    known: int = 0
    """Images that the catalog had."""
    added: int = 0
    variants: int = 0
    """Variants that got a row."""
    without_sidecar: int = 0
    """Of those added, how many came without filename and metadata."""
    failed: dict[str, str] = field(default_factory=dict)
    """What could not be taken in, and why, by ident."""


def reindex(library: Library, *, progress: Callable[[ReindexReport], None] = lambda _: None) -> ReindexReport:
    """Give every original in the store a row, if it has none, and every variant too.

    Originals are read and decoded, as in an upload. Filename, metadata and the time of upload come from the sidecar
    that lies beside the original, if there is one; its SHA-256 must be the original's. Without it they are lost, and
    the time is that of the blob. The store does not know what was deleted: an image that was in the trash is ready
    again, and idents that were given to images deleted since are free. Running it twice does no harm.
    """
    report = ReindexReport()
    for folder in folders_of(library):
        try:
            _index(library, folder, report)
        except LazypixError as error:
            log.warning("%s was not taken in: %s", folder.ident, error)
            report.failed[folder.ident] = str(error)
        progress(report)
    return report


def _index(library: Library, folder: Folder, report: ReindexReport) -> None:
    state = library.catalog.states([folder.ident]).get(folder.ident)
    if state is None:
        original = next((blob for name, blob in folder.blobs if is_original(name)), None)
        if original is None:
            return  # only variants: of no use without it
        image, complete = _image_of(library, folder, original)
        if library.catalog.adopt(image):
            report.added += 1
            report.without_sidecar += not complete
    elif state in ("ready", "trashed"):
        report.known += 1
    else:
        return
    rows = _unrecorded(library, folder)
    if rows:
        library.catalog.variants.add(rows)
        report.variants += len(rows)


def _image_of(library: Library, folder: Folder, original: Blob) -> tuple[Image, bool]:
    """Return what can be known of an original, and whether its sidecar told the rest."""
    with library.incoming.new(max_bytes=original.size) as copy:
        for piece in library.store.read(original.key):
            copy.write(piece)
        copy.finish()
        probe = library.engine.inspect(str(copy.path), library.limits).result()
        facts = _sidecar(library, folder.ident)
        if facts is not None and facts.get("sha256") != copy.sha256:
            raise OriginalDamaged("The original is not the one of which its sidecar tells")
        image = Image(
            ident=folder.ident, sha256=copy.sha256, size=copy.size, probe=probe,
            created=datetime.fromisoformat(facts["created"]).astimezone(UTC) if facts else original.modified,
            filename=facts["filename"] if facts else None,
            metadata=facts["metadata"] if facts else {},
        )  # fmt: skip
    return image, facts is not None


def _sidecar(library: Library, ident: str) -> dict[str, Any] | None:
    try:
        facts = json.loads(library.store.get(library.keys.folder(ident) + SIDECAR))
        datetime.fromisoformat(facts["created"])
        return dict(facts) if {"sha256", "filename", "metadata"} <= facts.keys() else None
    except BlobMissing:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("the sidecar of %s cannot be read", ident)
        return None


def _unrecorded(library: Library, folder: Folder) -> list[tuple[str, StoredVariant]]:
    recorded = {variant.name for variant in library.catalog.variants.of(folder.ident)}
    rows = []
    for name, blob in folder.blobs:
        named = variant_of(name)
        if named is None or name in recorded:
            continue
        size, digest = measure(library.store, blob.key)
        row = StoredVariant(
            stem=named[0], format=named[1], size=size, created=blob.modified, sha256=digest, used=blob.modified
        )
        rows.append((folder.ident, row))
    return rows
