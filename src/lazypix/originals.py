"""Originals: how one is taken in, read and removed, so that store and catalog never disagree about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Catalog, Image
from lazypix.engine import Engine
from lazypix.errors import BadUpload, BlobExists, IdentTaken, LazypixError
from lazypix.filenames import base_name, check_extension
from lazypix.formats import by_name
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.keys import KeyScheme, check_ident, new_ident
from lazypix.plan import Limits
from lazypix.stores import BlobStore

_KNOWN_IMAGES = 20_000
_FACTS_TTL_S = 5.0


class Originals:
    """The originals of a library, in its store and its catalog. Safe to use from many threads.

    What is known of an image is remembered for a few seconds: as long may this process take an image for present
    that another one has deleted.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        engine: Engine,
        keys: KeyScheme,
        limits: Limits,
        incoming: IncomingFolder,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._engine = engine
        self._keys = keys
        self._limits = limits
        self._incoming = incoming
        self._facts: MemoryCache[Image] = MemoryCache(max_bytes=_KNOWN_IMAGES, ttl_s=_FACTS_TTL_S)

    def add(
        self, incoming: Incoming, *, ident: str | None, filename: str | None, metadata: Mapping[str, Any] | None
    ) -> Image:
        """Verify an original that has been received, and store it. Errors: as `Library.add`."""
        ident = check_ident(ident) if ident is not None else new_ident()
        metadata = _as_json({} if metadata is None else metadata)
        incoming.finish()
        if incoming.size == 0:
            raise BadUpload("The image is empty (0 bytes)")
        filename = base_name(filename)
        probe = self._engine.inspect(str(incoming.path), self._limits).result()
        check_extension(filename, probe.format)
        image = Image(
            ident=ident,
            sha256=incoming.sha256,
            size=incoming.size,
            probe=probe,
            created=datetime.now(UTC),
            filename=filename,
            metadata=metadata,
        )
        self._store_durably(image, incoming.path)
        return image

    def _store_durably(self, image: Image, path: Path) -> None:
        """The upload protocol: claim, put durably, publish. A crash between two steps leaves only a claim."""
        self._catalog.claim(image)
        try:
            if next(iter(self._store.list(self._keys.folder(image.ident))), None) is not None:
                raise BlobExists(f"There are blobs of {image.ident} that the catalog does not know")
            self._store.create(self._key(image), path)
        except BlobExists:
            if self._catalog.withdraw(image.ident):  # the blobs are not ours to remove
                self._catalog.abandon(image.ident)
            raise IdentTaken(f"The ident {image.ident} is taken; existing data is never replaced") from None
        except BaseException:
            self._retract(image.ident)
            raise
        try:
            self._catalog.publish(image.ident)
        except BaseException:
            with suppress(LazypixError):  # the catalog is in trouble; the sweeper will try again
                self._retract(image.ident)
            raise

    def get(self, ident: str) -> Image:
        """Return what is known of an image.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        known = self._facts.get(check_ident(ident))
        if known is None:
            known = self._catalog.get(ident)
            self._facts.set(ident, known, 1)
        return known

    def forget(self, ident: str) -> None:
        """Have the facts of an image read again: they changed."""
        self._facts.delete(ident)

    def read(self, image: Image) -> bytes:
        """Return the original, as it came.

        Raises:
            UnknownImage: it was deleted.
        """
        with self.looking_again(image):
            return self._store.get(self._key(image))

    def path(self, image: Image) -> Path | None:
        """Return the original's file, to be read only, or None when the store has no files."""
        return self._store.local_path(self._key(image))

    @contextmanager
    def file(self, image: Image) -> Iterator[Path]:
        """Give a file with the original's bytes, to be read only, while it is used: its own, or a copy."""
        path = self.path(image)
        if path is not None:
            yield path
            return
        with self._incoming.new() as copy:
            copy.write(self._store.get(self._key(image)))
            copy.finish()
            yield copy.path

    @contextmanager
    def looking_again(self, image: Image) -> Iterator[None]:
        """Tell a deletion from a failure: another process may have deleted the image since its facts were read."""
        try:
            yield
        except LazypixError:
            self.forget(image.ident)
            self.get(image.ident)  # raises UnknownImage
            raise

    def delete(self, ident: str) -> None:
        """Remove the original and all variants. Errors: as `Library.delete`."""
        self._catalog.begin_delete(check_ident(ident))
        self.forget(ident)
        self._finish_delete(ident)

    def remove_blobs(self, ident: str) -> None:
        """Remove all blobs of an image that is deleted.

        Raises:
            StoreFailed: some of them may be there still.
        """
        self._store.delete_prefix(self._keys.folder(ident))

    def sweep(self, *, older_than_s: float) -> int:
        """Finish the deletions and undo the claims that are this old; return how many there were."""
        unfinished = self._catalog.unfinished(older_than_s=older_than_s)
        for ident, state in unfinished:
            if state == "deleting":
                self._finish_delete(ident)
            else:
                self._retract(ident)
        return len(unfinished)

    def _retract(self, ident: str) -> None:
        """Undo a claim. The catalog decides first: what was published in the meantime is not touched."""
        if self._catalog.withdraw(ident):
            self.remove_blobs(ident)
            self._catalog.abandon(ident)

    def _finish_delete(self, ident: str) -> None:
        self.remove_blobs(ident)
        self._catalog.end_delete(ident)

    def _key(self, image: Image) -> str:
        return self._keys.original(image.ident, by_name(image.format).extension)


def _as_json(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata as they will be read again (keys are texts, tuples are lists)."""
    try:
        read = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadUpload(f"The metadata cannot be kept as JSON ({error}); accepted: a JSON object") from None
    if not isinstance(read, dict):
        raise BadUpload(f"The metadata are a {type(metadata).__name__}; accepted: a JSON object")
    return read
