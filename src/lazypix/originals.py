"""Originals: how one is taken in, read and removed, so that store and catalog never disagree about it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Catalog, Image, State
from lazypix.engine import Engine
from lazypix.errors import (
    BadUpload,
    BlobExists,
    BlobMissing,
    Busy,
    IdentTaken,
    LazypixError,
    OriginalDamaged,
    StoreFailed,
)
from lazypix.filenames import base_name, check_extension
from lazypix.formats import READABLE, by_name
from lazypix.generations import Generations, Ticket
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.keys import KeyScheme, check_ident, new_ident
from lazypix.plan import Limits
from lazypix.stores import BlobStore

log = logging.getLogger("lazypix")
T = TypeVar("T")

_KNOWN_IMAGES = 20_000
UNDO_S = 180.0
"""How long a failed upload may take to be undone; longer than any request to a store."""
_READS = 2  # before an original that came over a network is said to be damaged


class Originals:
    """The originals of a library, in its store and its catalog. Safe to use from many threads.

    What is known of an image is remembered for `facts_ttl_s` seconds: as long may this process take an image for
    present that a process on another machine has deleted; on this machine `generations` tells at once.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        replica: BlobStore | None,
        engine: Engine,
        keys: KeyScheme,
        limits: Limits,
        incoming: IncomingFolder,
        generations: Generations,
        patience_s: float,
        facts_ttl_s: float,
        sidecars: bool,
        changed: Callable[[str], None] | None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._replica = replica
        self._engine = engine
        self._keys = keys
        self._limits = limits
        self._incoming = incoming
        self._generations = generations
        self._patience_s = patience_s
        self._sidecars = sidecars
        self._changed = changed
        self._facts: MemoryCache[tuple[Ticket, Image]] = MemoryCache(max_bytes=_KNOWN_IMAGES, ttl_s=facts_ttl_s)

    def add(
        self, incoming: Incoming, *, ident: str | None, filename: str | None, metadata: Mapping[str, Any] | None
    ) -> Image:
        """Verify an original that has been received, and store it. Errors: as `Library.add`."""
        chosen = ident is not None
        ident = check_ident(ident) if ident is not None else new_ident()
        metadata = as_json({} if metadata is None else metadata)
        incoming.finish()
        if incoming.size == 0:
            raise BadUpload("The image is empty (0 bytes)")
        filename = base_name(filename)
        probe = self._patiently(self._engine.inspect(str(incoming.path), self._limits))
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
        self._store_durably(image, incoming.path, chosen=chosen)
        return image

    def _store_durably(self, image: Image, path: Path, *, chosen: bool) -> None:
        """The upload protocol: claim, put durably, publish. A crash between two steps leaves only a claim.

        Before the claim nothing may lie in the store: whoever undoes the claim removes what is there.
        """
        if chosen:
            self._check_nothing_is_there(image)
        claim = self._claim(image)
        try:
            self._store.create(self.key(image), path)
            self.put_sidecar(image)
        except BlobExists:
            if self._catalog.withdraw(image.ident, claim):  # the blobs are not ours to remove
                self._catalog.abandon(image.ident, claim)
            raise _taken(image.ident) from None
        except BaseException:
            self._retract(image.ident, claim)
            raise
        try:
            self._catalog.publish(image.ident, claim)
        except BaseException:
            with suppress(LazypixError):  # the catalog is in trouble; the sweeper will try again
                self._retract(image.ident, claim)
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
        self.remove_blobs(image.ident)
        self._catalog.abandon(image.ident, token)
        return self._catalog.claim(image)

    def put_sidecar(self, image: Image) -> None:
        """Store what only the catalog knows of an image beside its original, if that is wanted."""
        if self._sidecars:
            self._store.put(self._keys.sidecar(image.ident), json.dumps(image.facts()).encode())

    def get(self, ident: str) -> Image:
        """Return what is known of an image.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        known = self._facts.get(check_ident(ident))
        if known is not None and self._generations.is_valid(known[0]):
            return known[1]
        ticket = self._generations.ticket(ident)  # before the look: a deletion in between makes it invalid
        image = self._catalog.get(ident)
        self._facts.set(ident, (ticket, image), 1)
        return image

    def forget(self, ident: str) -> None:
        """Have an image looked up again by all processes of this machine; and end what machines share of it."""
        self._generations.change(ident)
        if self._changed is not None:
            self._changed(ident)

    def read(self, image: Image) -> bytes:
        """Return the original, as it came.

        Raises:
            UnknownImage: it was deleted.
            OriginalDamaged, BlobMissing: the store does not have it any more as it was.
        """
        self.check_intact(image)
        with self.looking_again(image):
            for reads_left in reversed(range(_READS)):
                body = self._store.get(self.key(image))
                trusted = self.path(image) is not None  # a folder is verified by scrubs
                if len(body) == image.size and (trusted or hashlib.sha256(body).hexdigest() == image.sha256):
                    break
                if not reads_left:
                    self.found_damaged(image)
        return body

    def pieces(self, image: Image, start: int, length: int) -> Iterator[bytes]:
        """Yield a part of the original; errors as `read`, with the first piece.

        The whole is verified on the way: the last piece of a damaged one does not come. A part of it is not.
        """
        self.check_intact(image)
        digest, left = hashlib.sha256(), length
        with self.looking_again(image):
            for piece in self._store.read(self.key(image), start, length):
                digest.update(piece)
                left -= len(piece)
                if left <= 0 and length == image.size and digest.hexdigest() != image.sha256:
                    self.found_damaged(image)
                yield piece
            if left > 0 and start + length <= image.size:
                self.found_damaged(image)

    def check_intact(self, image: Image) -> None:
        """Refuse an original whose stored bytes are known to be wrong.

        Raises:
            OriginalDamaged: so it is.
        """
        if image.damaged:
            raise OriginalDamaged(f"The stored original of {image.ident} is damaged, and waits to be repaired")

    def check_there(self, image: Image) -> None:
        """Make sure that the original lies in the store, without reading it. Errors: as `read`."""
        self.check_intact(image)
        with self.looking_again(image):
            if self._store.head(self.key(image)).size != image.size:
                self.found_damaged(image)

    def path(self, image: Image) -> Path | None:
        """Return the original's file, to be read only, or None when the store has no files."""
        return self._store.local_path(self.key(image))

    @contextmanager
    def file(self, image: Image) -> Iterator[Path]:
        """Give a file with the original's bytes, to be read only, while it is used: its own, or a verified copy.

        Raises:
            OriginalDamaged, BlobMissing: the store does not have it any more as it was.
        """
        self.check_intact(image)
        path = self.path(image)
        if path is not None:
            if not path.exists():
                raise BlobMissing(f"The original of {image.ident} is not in the store")
            if path.stat().st_size != image.size:
                self.found_damaged(image)
            yield path
            return
        for reads_left in reversed(range(_READS)):
            with self._incoming.new(max_bytes=image.size) as copy:
                for piece in self._store.read(self.key(image)):
                    copy.write(piece)
                copy.finish()
                if copy.sha256 == image.sha256:
                    yield copy.path
                    return
            if not reads_left:
                self.found_damaged(image)

    @contextmanager
    def looking_again(self, image: Image) -> Iterator[None]:
        """Tell a deletion from a failure: another process may have deleted the image since its facts were read."""
        try:
            yield
        except LazypixError:
            self._generations.change(image.ident)
            self.get(image.ident)  # raises UnknownImage
            raise

    def delete(self, ident: str, *, trash_s: float) -> None:
        """Hide the image; then, unless it goes to the trash, remove it. Errors: as `Library.delete`."""
        image = self._catalog.begin_delete(check_ident(ident), trash_s=trash_s)
        self.forget(ident)
        if trash_s:
            return
        try:
            self._finish_delete(image.ident)
        except LazypixError as error:  # it is deleted, and stays so; the sweeper removes what is left
            log.warning("%s is deleted, but not all of its blobs are removed yet: %s", ident, error)

    def undelete(self, ident: str) -> Image:
        """Have a trashed image back. Errors: as `Library.undelete`."""
        self._catalog.undelete(check_ident(ident))
        self.forget(ident)
        return self.get(ident)

    def remove_blobs(self, ident: str) -> None:
        """Remove all blobs of an image that is deleted, also those of the replica.

        Raises:
            StoreFailed: some of them may be there still.
        """
        for store in (self._store, self._replica):
            if store is None:
                continue
            if store.capabilities.lists_prefixes:
                store.delete_prefix(self._keys.folder(ident))
            else:
                for key in self._known_keys(ident):
                    store.delete(key)

    def sweep(self, *, older_than_s: float) -> int:
        """Finish the deletions and undo the claims that are this old, and empty the trash; return how many.

        What was deleted is looked through once more after a while: whoever was storing a variant at that moment and
        was killed right then could not take it back. An image that cannot be removed now does not keep the others.
        """
        done = 0
        for states, age_s in ((("trashed",), 0.0), ((), older_than_s), (("deleted",), older_than_s)):
            for ident, state in self._catalog.unfinished(*states, older_than_s=age_s):
                try:
                    done += self._finish(ident, state, older_than_s)
                except StoreFailed as error:
                    log.warning("%s (%s) is not cleaned up yet, and tried again later: %s", ident, state, error)
        return done

    def _finish(self, ident: str, state: State, older_than_s: float) -> bool:
        if state == "trashed":
            if not self._catalog.empty_trash(ident):
                return False  # had back meanwhile
            self._finish_delete(ident)
        elif state == "deleting":
            self._finish_delete(ident)
        elif state == "deleted":
            self.remove_blobs(ident)
            self._catalog.forget_deleted(ident)
            return False
        else:
            claim = self._catalog.take_over(ident, older_than_s=older_than_s)
            if claim is None:
                return False
            self.remove_blobs(ident)
            self._catalog.abandon(ident, claim)
        return True

    def _retract(self, ident: str, claim: str) -> None:
        """Undo a claim of our own. The catalog decides first: what is not ours any more is not touched."""
        if self._catalog.withdraw(ident, claim):
            self.remove_blobs(ident)
            self._catalog.abandon(ident, claim)

    def _finish_delete(self, ident: str) -> None:
        self.forget(ident)  # again: whoever began the deletion may have been killed before
        self.remove_blobs(ident)
        self._catalog.end_delete(ident)

    def found_damaged(self, image: Image) -> NoReturn:
        """Have it known that the stored original is not what was uploaded.

        Raises:
            OriginalDamaged: always.
        """
        log.error("the stored original of %s is damaged: its bytes are not those that were uploaded", image.ident)
        self._catalog.mark(image.ident, damaged=True)
        self.forget(image.ident)
        raise OriginalDamaged(f"The stored original of {image.ident} is damaged, and waits to be repaired")

    def _check_nothing_is_there(self, image: Image) -> None:
        """Refuse an ident whose blobs lie in the store without the catalog knowing; a new ident has none."""
        if not self._store.capabilities.lists_prefixes or image.ident in self._catalog.states([image.ident]):
            return  # a row decides by itself
        if next(iter(self._store.list(self._keys.folder(image.ident))), None) is not None:
            raise _taken(image.ident)

    def _known_keys(self, ident: str) -> Iterator[str]:
        """Yield the keys that an image may have, for stores that cannot list them."""
        for variant in self._catalog.variants.of(ident):
            yield self._keys.folder(ident) + variant.name
        for format_name in READABLE:
            yield self._keys.original(ident, by_name(format_name).extension)
        yield self._keys.sidecar(ident)

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

    def key(self, image: Image) -> str:
        """Return the key of the original."""
        return self._keys.original(image.ident, by_name(image.format).extension)


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
