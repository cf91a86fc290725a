"""Originals are taken in: verified, claimed, stored durably, and only then published."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lazypix.catalog import Catalog, Image
from lazypix.catalog.job_values import NewJob
from lazypix.catalog.upload_rows import LastPiece
from lazypix.engine import Engine
from lazypix.errors import BadUpload, BlobExists, Busy, IdentTaken, LazypixError, StoreFailed, UnsupportedImage
from lazypix.filenames import base_name, check_extension
from lazypix.incoming import Incoming
from lazypix.keys import KeyScheme, check_ident, new_ident
from lazypix.originals.reading import Originals
from lazypix.originals.removing import Removals
from lazypix.plan import Limits, Probe
from lazypix.stores import BlobStore

T = TypeVar("T")

JobsOf = Callable[[Image], Sequence[NewJob]]
"""Says what is to be done with a new image; added in the transaction that makes it exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Which images are taken, of those that the library takes."""

    formats: tuple[str, ...] = ()
    """Names; empty: all."""
    max_pixels: int | None = None


UNDO_S = 180.0
"""How long a failed upload may take to be undone; longer than any request to a store."""


class Uploads:
    """The upload protocol. Safe to use from many threads."""

    def __init__(
        self,
        originals: Originals,
        removals: Removals,
        *,
        catalog: Catalog,
        store: BlobStore,
        engine: Engine,
        keys: KeyScheme,
        limits: Limits,
        patience_s: float,
        sidecars: bool,
    ) -> None:
        self._originals = originals
        self._removals = removals
        self._catalog = catalog
        self._store = store
        self._engine = engine
        self._keys = keys
        self._limits = limits
        self._patience_s = patience_s
        self._sidecars = sidecars

    def add(
        self,
        incoming: Incoming,
        *,
        ident: str | None,
        filename: str | None,
        metadata: Mapping[str, Any] | None,
        jobs: JobsOf | None = None,
        owner: str | None = None,
        last: LastPiece | None = None,
        accepted: Accepted | None = None,
    ) -> Image:
        """Verify an original that has been received, and store it. Errors: as `Library.add`.

        `last`: it came in pieces, of which this one completed it; errors then also as `Catalog.publish`.
        """
        chosen = ident is not None
        ident = check_ident(ident) if ident is not None else new_ident()
        metadata = as_json({} if metadata is None else metadata)
        if owner is not None:
            self._catalog.keys.check_room(owner, incoming.size)  # before it costs a renderer anything
        filename = base_name(filename)
        probe = self.verify(incoming, filename, accepted)
        image = Image(
            ident=ident,
            sha256=incoming.sha256,
            size=incoming.size,
            probe=probe,
            created=datetime.now(UTC),
            filename=filename,
            metadata=metadata,
            owner=owner,
        )
        self._store_durably(image, incoming.path, jobs(image) if jobs is not None else (), last, chosen=chosen)
        return image

    def verify(self, incoming: Incoming, filename: str | None, accepted: Accepted | None = None) -> Probe:
        """Return what was received, decoded once to its end; nothing is stored.

        Raises:
            BadUpload, UnsupportedImage, TooLarge, BrokenImage, RendererLost, Busy: as `Library.add`.
        """
        incoming.finish()
        if incoming.size == 0:
            raise BadUpload("The image is empty (0 bytes)")
        accepted = accepted or Accepted()
        most = self._limits.max_pixels if accepted.max_pixels is None else accepted.max_pixels
        limits = replace(self._limits, max_pixels=min(most, self._limits.max_pixels))
        probe = self._patiently(self._engine.inspect(str(incoming.path), limits))
        check_extension(base_name(filename), probe.format)
        if accepted.formats and probe.format not in accepted.formats:
            raise UnsupportedImage(f"This is a {probe.format} image; accepted here: {', '.join(accepted.formats)}")
        return probe

    def _store_durably(
        self, image: Image, path: Path, jobs: Sequence[NewJob], last: LastPiece | None, *, chosen: bool
    ) -> None:
        """The upload protocol: claim, put durably, publish. A crash between two steps leaves only a claim.

        Before the claim nothing may lie in the store: whoever undoes the claim removes what is there.
        """
        if chosen:
            self._check_nothing_is_there(image)
        claim = self._claim(image)
        try:
            self._store.create(self._originals.key(image), path)
            self.put_sidecar(image)
        except BlobExists:
            if self._catalog.withdraw(image.ident, claim):  # the blobs are not ours to remove
                self._catalog.abandon(image.ident, claim)
            raise _taken(image.ident) from None
        except BaseException:
            self._removals.retract(image.ident, claim)
            raise
        try:
            self._catalog.publish(image.ident, claim, jobs=jobs, last=last)
        except BaseException:
            with suppress(LazypixError):  # the catalog is in trouble; the sweeper will try again
                self._removals.retract(image.ident, claim)
            raise

    def _claim(self, image: Image) -> str:
        try:
            return self._catalog.claim(image)
        except IdentTaken:
            if self._catalog.states([image.ident]).get(image.ident) != "withdrawn":
                raise
        # An upload that failed is being undone. After a while whoever does that is gone, and it is ours to finish.
        token = self._catalog.take_over(image.ident, older_than_s=UNDO_S)
        if token is None:
            raise Busy(f"An upload of {image.ident} that failed is being undone; send it again in some minutes")
        self._removals.remove_blobs(image.ident)
        self._catalog.abandon(image.ident, token)
        return self._catalog.claim(image)

    def put_sidecar(self, image: Image) -> None:
        """Store what only the catalog knows of an image beside its original, if that is wanted."""
        if self._sidecars:
            self._store.put(self._keys.sidecar(image.ident), json.dumps(image.facts()).encode())

    def _check_nothing_is_there(self, image: Image) -> None:
        """Refuse an ident whose blobs lie in the store without the catalog knowing; a new ident has none."""
        if not self._store.capabilities.lists_prefixes or image.ident in self._catalog.states([image.ident]):
            return  # a row decides by itself
        if next(iter(self._store.list(self._keys.folder(image.ident))), None) is not None:
            raise _taken(image.ident)

    def _patiently(self, work: Future[T]) -> T:
        """Wait for a renderer, but not for ever: behind much work an upload is better refused."""
        try:
            return work.result(self._patience_s)
        except TimeoutError:
            if not work.done():
                work.cancel()
                raise Busy("All renderers are busy; nothing was stored; try again later") from None
            raise
        except FileNotFoundError:
            raise StoreFailed("The upload was removed before it was stored; send it again") from None


def _taken(ident: str) -> IdentTaken:
    return IdentTaken(f"The ident {ident} is taken; existing data is never replaced")


def as_json(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata as they will be read again (keys are texts, tuples are lists).

    Raises:
        BadUpload: they cannot be kept as JSON.
    """
    try:
        read = json.loads(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())  # no lone surrogates
    except (TypeError, ValueError, RecursionError) as error:
        raise BadUpload(f"The metadata cannot be kept as JSON ({error}); accepted: a JSON object") from None
    if not isinstance(read, dict):
        raise BadUpload(f"The metadata are a {type(metadata).__name__}; accepted: a JSON object")
    return read
