"""Scrubbing: originals are read again and hashed, before anybody needs them; what is damaged is mended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lazypix.catalog import Image
from lazypix.errors import BlobMissing, LazypixError, UnknownImage
from lazypix.formats import by_name
from lazypix.library import Library
from lazypix.replicas.replica import Replica
from lazypix.stores import BlobStore
from lazypix.upkeep.verifying import measure

log = logging.getLogger("lazypix")

_PAGE = 100


@dataclass(slots=True, kw_only=True)
class ScrubReport:
    """What a scrub found."""

    checked: int = 0
    bytes: int = 0
    mended: list[str] = field(default_factory=list)
    """Idents of originals that were damaged, and were mended from a replica."""
    damaged: list[str] = field(default_factory=list)
    """Idents of originals that are damaged or missing; they are not served."""


class Pace:
    """Keeps reading at a rate, in bytes a second; 0: as fast as it goes."""

    def __init__(
        self,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._begun = clock()
        self._bytes = 0

    def note(self, size: int) -> None:
        """Note that so many bytes were read; wait when that was too fast."""
        self._bytes += size
        if self._rate > 0:
            ahead = self._bytes / self._rate - (self._clock() - self._begun)
            if ahead > 0:
                self._sleep(ahead)


def scrub(
    library: Library,
    *,
    bytes_per_s: float = 0.0,
    older_than_s: float = 0.0,
    budget_s: float | None = None,
    progress: Callable[[ScrubReport], None] = lambda _: None,
) -> ScrubReport:
    """Verify the originals that were not verified for `older_than_s` seconds, those that wait longest first.

    Those that are known to be damaged are verified whatever their age; with infinity, they alone.

    One that is not what was uploaded is marked, so that it is not served, nor rendered, any more; then it is mended
    from a replica, or stays marked until a later scrub can mend it. At
    most `bytes_per_s` are read, for at most `budget_s` seconds: what is left comes first the next time.
    """
    report, pace = ScrubReport(), Pace(bytes_per_s)
    begun = time.monotonic()
    until_us = max(0, int((time.time() - older_than_s) * 1e6)) if older_than_s < math.inf else 0
    behind: tuple[int, str] | None = None
    while True:
        page = library.catalog.health.unchecked(until_us=until_us, behind=behind, limit=_PAGE)
        for checked_us, image in page:
            if budget_s is not None and time.monotonic() - begun > budget_s:
                return report
            behind = (checked_us, image.ident)
            _scrub_one(library, image, pace, report)
            progress(report)
        if len(page) < _PAGE:
            return report


def _scrub_one(library: Library, image: Image, pace: Pace, report: ScrubReport) -> None:
    fault = _fault(library.store, library.originals.key(image), image, pace)
    report.checked += 1
    report.bytes += image.size
    if fault is None:
        library.catalog.health.mark(image.ident, damaged=False)
        if image.damaged:
            library.originals.forget(image.ident)
        return
    library.originals.forget(image.ident)
    try:
        library.get(image.ident)
    except UnknownImage:
        return  # deleted meanwhile
    log.error("the original of %s is damaged: %s", image.ident, fault)
    library.catalog.health.mark(image.ident, damaged=True)
    library.originals.forget(image.ident)
    if any(mend(library, image, replica) for replica in library.replicas):
        report.mended.append(image.ident)
    else:
        report.damaged.append(image.ident)


def mend(library: Library, image: Image, replica: Replica) -> bool:
    """Put a replica's copy of an original in place of the damaged one, if it is good; return whether it was."""
    key = library.originals.key(image)
    try:
        with library.incoming.new(max_bytes=image.size) as copy:
            for piece in replica.store.read(replica.layout.original(image.ident, by_name(image.format).extension)):
                copy.write(piece)
            copy.finish()
            if copy.sha256 != image.sha256:
                log.error("the copy of %s in replica %s is damaged too", image.ident, replica.name)
                return False
            library.store.put(key, copy.path)
    except LazypixError as error:
        log.error("the original of %s was not mended from replica %s: %s", image.ident, replica.name, error)
        return False
    if _fault(library.store, key, image, Pace(0)) is not None:
        log.error("the original of %s is damaged again right after it was mended", image.ident)
        return False
    library.catalog.health.mark(image.ident, damaged=False)
    library.originals.forget(image.ident)
    log.warning("the original of %s was mended from replica %s", image.ident, replica.name)
    return True


def _fault(store: BlobStore, key: str, image: Image, pace: Pace) -> str | None:
    """Return what is wrong with a stored original, or None. A store that does not answer is no fault of it."""
    try:
        size, digest = measure(store, key, pace.note)
    except BlobMissing:
        return "it is not in the store"
    if size != image.size:
        return f"it has {size} bytes instead of {image.size}"
    return None if digest == image.sha256 else "its bytes are others than those that were uploaded"
