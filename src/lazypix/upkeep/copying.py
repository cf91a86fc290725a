"""A library is copied to another one: between folders, stores and catalogs of any kind."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from lazypix.catalog import DELETED, LASTING, Image, State
from lazypix.errors import BlobMissing, LazypixError, OriginalDamaged, StoreFull
from lazypix.library import Library
from lazypix.upkeep.crew import Crew
from lazypix.upkeep.intake import Entry, Intake, Outcome
from lazypix.upkeep.reading import read_original, read_variant, stored_variants
from lazypix.upkeep.report import Progress, Report, Tally

log = logging.getLogger("lazypix")

_LOOKED_UP_AT_ONCE = 100


def copy_library(
    source: Library,
    target: Library,
    *,
    progress: Progress | None = None,
    threads: int = 8,
    variants: bool = True,
) -> Report:
    """Copy all images of `source` that `target` does not have, with all that is known of them.

    Every original is verified on its way. Both libraries may be in use. Whenever this was cut short, or the source
    changed since, another run completes the copy: images that are there are not read again, and what was deleted
    from the source meanwhile is deleted from the target. What is in the target only stays as it is. An image that
    cannot be copied is told in the report, and the others go on. Needs no engine.

    Raises:
        StoreFull: no space left in the target.
        StoreFailed: a catalog cannot do its work.
    """
    numbers = source.catalog.numbers()
    tally = Tally(progress, total=sum(numbers.get(state, 0) for state in LASTING))
    copying = _Copying(source, target, tally, with_variants=variants)
    with Crew(threads) as crew:
        for some in _batches(source.catalog.walk_all()):
            known = target.catalog.entries([image.ident for image, _ in some])
            for image, state in some:
                crew.give(partial(copying.copy, image, state, known.get(image.ident)))
    return tally.report


class _Copying:
    """One run of a copy."""

    def __init__(self, source: Library, target: Library, tally: Tally, *, with_variants: bool) -> None:
        self._source = source
        self._target = target
        self._tally = tally
        self._with_variants = with_variants
        self._intake = Intake(target, follow=True)

    def copy(self, image: Image, state: State, there: Entry | None) -> None:
        """Copy one image, and count what came of it."""
        try:
            outcome, state = self._copy_image(image, state, there)
            if self._with_variants and state == "ready":
                self._copy_variants(image)
        except StoreFull:
            raise
        except LazypixError as error:
            self._tally.fail(image.ident, error)
        else:
            self._tally.add(**{outcome: 1})

    def _copy_image(self, image: Image, state: State, there: Entry | None) -> tuple[Outcome, State]:
        try:
            return self._intake.take(image, state, there, partial(self._original, image)), state
        except (BlobMissing, OriginalDamaged) as error:
            now = self._source.catalog.states([image.ident]).get(image.ident, "gone")
            if now not in DELETED and isinstance(error, OriginalDamaged):
                self._source.originals.found_damaged(image)
            if now not in DELETED:  # not marked: a missing one may only mean that the source was opened wrongly
                raise
        # Deleted since it was listed: that is why the original is not there.
        there = self._intake.known([image.ident]).get(image.ident)
        return self._intake.take(image, now, there, partial(self._original, image)), now

    @contextmanager
    def _original(self, image: Image) -> Iterator[Path]:
        with read_original(self._source, image, self._target.incoming) as file:
            yield file.path
        self._tally.add(bytes=image.size)

    def _copy_variants(self, image: Image) -> None:
        """Copy the variants that the target has not stored; a bad one is left out, since it can be made again."""
        recorded = self._source.catalog.variants.of(image.ident)
        if not recorded:
            return
        there = stored_variants(self._target, image.ident)
        for variant in recorded:
            if variant.name in there:
                continue
            try:
                with read_variant(self._source, image.ident, variant, self._target.incoming) as file:
                    kept = replace(variant, sha256=file.sha256, fence=0)  # numbers of other leases mean nothing there
                    if not self._target.shelf.place(image.ident, kept, file.path):
                        return  # deleted there meanwhile
            except (BlobMissing, OriginalDamaged) as error:
                log.warning("a variant of %s was not copied: %s", image.ident, error)
            else:
                self._tally.add(variants=1, bytes=variant.size)


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while some := list(islice(rest, _LOOKED_UP_AT_ONCE)):
        yield some
