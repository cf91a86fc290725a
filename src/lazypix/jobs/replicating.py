"""Jobs of a replica: it gets what an image has, and loses what a deleted one had."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lazypix.catalog import DELETED, Image, StoredVariant
from lazypix.catalog.job_values import Job
from lazypix.errors import BlobMissing, Busy, LazypixError, TooLarge, UnknownImage
from lazypix.formats import by_name
from lazypix.jobs import Kind
from lazypix.library import Library
from lazypix.orders import replicate
from lazypix.replicas.layout import shared_out
from lazypix.replicas.replica import Replica
from lazypix.transform import Transform

log = logging.getLogger("lazypix")

LANE = "replicas"
_ATTEMPTS, _LONGEST_WAIT_S = 50, 600.0  # hours: a replica that is away rests besides, and costs no attempts then


class NotCopied(LazypixError):
    """What is to be copied is not there, or not now; the replica is not to blame, and does not rest."""


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
        self._replica = replica

    def carry_out(self, job: Job) -> None:
        """Do what a job of `orders.Orders` says.

        Raises:
            StoreFailed, StoreFull: the replica is away, or full.
            NotCopied: what is to be copied is not there as it was stored.
            LazypixError: a size cannot be made.
        """
        assert job.ident is not None
        named = [(str(stem), str(name)) for stem, name in job.payload.get("variants", ())]
        if self._is_deleted(job.ident):
            self._remove(job.ident, named)
            return
        try:
            image = self._library.catalog.get(job.ident)
        except UnknownImage:  # in the trash: replicated when it is had back
            return
        try:
            self._bring(image, job, named)
        finally:
            if self._is_deleted(job.ident):
                self._remove(job.ident, named)

    def put_original(self, image: Image) -> None:
        """Put an original, unless one of its size is there already."""
        extension = by_name(image.format).extension
        key = self._replica.layout.original(image.ident, extension)
        if self._replica.size(key) == image.size:
            return
        with self._copy(self._library.originals.key(image), image.size, image.sha256) as (path, sha256):
            self._replica.put(key, path, sha256)

    def put_variant(self, ident: str, variant: StoredVariant) -> None:
        """Put a variant under its key, or the one that has precedence there; one that is not stored is left out."""
        key = self._replica.layout.variant(ident, variant)
        recorded = self.received(self._library.catalog.variants.of(ident))
        chosen = shared_out(self._replica.layout, ident, recorded).get(key) if key is not None else None
        if key is None or chosen is None:
            return
        source = self._library.keys.folder(ident) + chosen.name
        try:
            with self._copy(source, chosen.size, chosen.sha256) as (path, sha256):
                self._replica.put(key, path, sha256)
        except NotCopied as error:
            log.info("a variant of %s is not replicated to %s: %s", ident, self._replica.name, error)

    def received(self, variants: Sequence[StoredVariant]) -> list[StoredVariant]:
        """Return those variants that the replica receives."""
        return [v for v in variants if self._replica.what == "all" or (self._replica.what == "named" and v.named)]

    def _bring(self, image: Image, job: Job, named: list[tuple[str, str]]) -> None:
        if job.payload.get("original"):
            self.put_original(image)
        failure: LazypixError | None = None
        for text in job.payload.get("sizes", ()):
            try:
                self._put_size(image, Transform.parse(str(text)))
            except LazypixError as error:  # the others all the same
                failure = failure or error
        if named or job.payload.get("whole"):
            for variant in self.received(self._library.catalog.variants.of(image.ident)):
                if job.payload.get("whole") or (variant.stem, variant.format) in named:
                    self.put_variant(image.ident, variant)
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
                self.put_variant(image.ident, variant)
                return
        raise NotCopied(f"{transform.text} of {image.ident} is made, and not stored yet")

    @contextmanager
    def _copy(self, key: str, size: int, sha256: str | None) -> Iterator[tuple[Path, str]]:
        """Give a file with a blob of the library's store, and its hash."""
        with self._library.incoming.new(max_bytes=size) as file:
            try:
                for piece in self._library.store.read(key):
                    file.write(piece)
            except (BlobMissing, TooLarge) as error:
                raise NotCopied(f"{key} is not in the store as it was stored ({type(error).__name__})") from None
            file.finish()
            if file.size != size or sha256 not in (None, file.sha256):
                raise NotCopied(f"{key} does not have the bytes that were stored")
            yield file.path, file.sha256

    def _is_deleted(self, ident: str) -> bool:
        return self._library.catalog.states([ident]).get(ident) in DELETED

    def _remove(self, ident: str, named: Sequence[tuple[str, str]]) -> None:
        now = datetime.now(UTC)
        had = [StoredVariant(stem=stem, format=name, size=0, created=now) for stem, name in named]
        self._replica.remove(ident, [*had, *self._library.catalog.variants.of(ident)])
