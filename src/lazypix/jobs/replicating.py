"""Jobs of a replica: it gets what an image has, and loses what a deleted one had."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from lazypix.catalog import Image, StoredVariant
from lazypix.catalog.job_values import Job
from lazypix.errors import Busy, LazypixError, UnknownImage
from lazypix.jobs import Kind
from lazypix.library import Library
from lazypix.orders import replicate
from lazypix.replicas.replica import Replica
from lazypix.transform import Transform
from lazypix.upkeep.mirroring import Mirror, NotCopied

LANE = "replicas"
_ATTEMPTS, _LONGEST_WAIT_S = 50, 600.0  # hours: a replica that is away rests besides, and costs no attempts then


def replicating(library: Library, replica: Replica) -> Kind:
    """Return the kind of the jobs for a replica."""
    return Kind(
        name=replicate(replica.name), carry_out=Replicating(library, replica).carry_out, lane=LANE,
        attempts=_ATTEMPTS, longest_wait_s=_LONGEST_WAIT_S,
    )  # fmt: skip


class Replicating:
    """Brings one replica up to date, image by image. Safe to use from many threads and processes.

    The catalog decides, before and after a blob is put: an image that is deleted meanwhile is removed by whoever sees
    it last, in whatever order puts and deletions come.
    """

    def __init__(self, library: Library, replica: Replica) -> None:
        self._library = library
        self._mirror = Mirror(library, replica)

    def carry_out(self, job: Job) -> None:
        """Do what a job of `orders.Orders` says.

        Raises:
            StoreFailed, StoreFull: the replica is away, or full.
            NotCopied: what is to be copied is not there as it was stored, or cannot be made now.
            LazypixError: a size cannot be made.
        """
        assert job.ident is not None
        variants = _named(job)
        if self._mirror.is_deleted(job.ident):
            self._mirror.remove(job.ident, variants)
            return
        try:
            image = self._library.catalog.get(job.ident)
        except UnknownImage:  # in the trash: replicated when it is had back
            for variant in variants:
                self._mirror.lose_variant(job.ident, variant)
            return
        try:
            self._bring(image, job, variants)
        finally:
            if self._mirror.is_deleted(job.ident):
                self._mirror.remove(job.ident, variants)

    def _bring(self, image: Image, job: Job, variants: Sequence[StoredVariant]) -> None:
        if job.payload.get("original"):
            self._mirror.put_original(image)
        failure: LazypixError | None = None
        for text in job.payload.get("sizes", ()):
            try:
                self._put_size(image, Transform.parse(str(text)))
            except LazypixError as error:  # the others all the same
                failure = failure or error
        if job.payload.get("whole"):
            variants = [*variants, *self._mirror.received(self._library.catalog.variants.of(image.ident))]
        for variant in variants:
            self._mirror.bring_variant(image.ident, variant)
        if failure is not None:
            raise failure

    def _put_size(self, image: Image, transform: Transform) -> None:
        """Put a size that was named; it is made if it is not stored."""
        try:
            self._library.variant(image.ident, transform, background=True)
        except Busy as error:  # it is this server that has no time, and not the replica
            raise NotCopied(str(error)) from None
        stem, format_name = transform.stem, transform.format or ""
        self._library.catalog.variants.mark_named((image.ident, stem, format_name))
        for variant in self._library.catalog.variants.of(image.ident):
            if (variant.stem, variant.format) == (stem, format_name):
                self._mirror.bring_variant(image.ident, variant)
                return
        raise NotCopied(f"{transform.text} of {image.ident} is made, and not stored yet")


def _named(job: Job) -> list[StoredVariant]:
    """Return the variants that a job names; whether they are still there is for the catalog to say."""
    now = datetime.now(UTC)
    names = job.payload.get("variants", ())
    return [StoredVariant(stem=str(stem), format=str(name), size=0, created=now) for stem, name in names]
