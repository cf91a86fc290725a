"""What is known of an original, and its bytes: as they were uploaded, or not at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Catalog, Image
from lazypix.changes import Changes
from lazypix.errors import BlobMissing, LazypixError, OriginalDamaged
from lazypix.formats import by_name
from lazypix.generations import Generations, Ticket
from lazypix.incoming import IncomingFolder
from lazypix.keys import KeyScheme, check_ident
from lazypix.stores import BlobStore

log = logging.getLogger("lazypix")

_KNOWN_IMAGES = 20_000
_READS = 2  # before an original that came over a network is said to be damaged


class Originals:
    """The originals of a library, as they are looked up and read. Safe to use from many threads.

    What is known of an image is remembered for `facts_ttl_s` seconds, but no longer than until a process of this
    machine changes it (`generations`), or another machine's, if it is listened to (`Library.listen`).
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        keys: KeyScheme,
        incoming: IncomingFolder,
        generations: Generations,
        changes: Changes,
        facts_ttl_s: float,
        end_shared: Callable[[str], None] | None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._keys = keys
        self._incoming = incoming
        self._generations = generations
        self._changes = changes
        self._end_shared = end_shared
        self._facts: MemoryCache[tuple[Ticket, Image]] = MemoryCache(max_bytes=_KNOWN_IMAGES, ttl_s=facts_ttl_s)

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

    def forget(self, *idents: str, in_catalog: bool = False) -> None:
        """Have images looked up again by every process of every machine; and end what machines share of them.

        To be called after the change. `in_catalog`: it was one of the catalog, which announced it by itself.
        """
        for ident in idents:
            self._generations.change(ident)
            if self._end_shared is not None:
                self._end_shared(ident)
        self._changes.announce(idents, in_catalog=in_catalog)  # last: who looks then finds nothing shared any more

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

    def found_damaged(self, image: Image) -> NoReturn:
        """Have it known that the stored original is not what was uploaded.

        Raises:
            OriginalDamaged: always.
        """
        log.error("the stored original of %s is damaged: its bytes are not those that were uploaded", image.ident)
        self._catalog.health.mark(image.ident, damaged=True)
        self.forget(image.ident, in_catalog=True)
        raise OriginalDamaged(f"The stored original of {image.ident} is damaged, and waits to be repaired")

    def key(self, image: Image) -> str:
        """Return the key of the original."""
        return self._keys.original(image.ident, by_name(image.format).extension)
