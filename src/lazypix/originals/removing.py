"""Originals are removed, with all that was made of them; and what is left half done is finished or undone."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from lazypix.catalog import Catalog, Image, State, StoredVariant
from lazypix.catalog.job_values import NewJob
from lazypix.errors import LazypixError, StoreFailed
from lazypix.formats import READABLE, by_name
from lazypix.keys import KeyScheme, check_ident
from lazypix.orders import Orders
from lazypix.originals.reading import Originals
from lazypix.stores import BlobStore

log = logging.getLogger("lazypix")


class Removals:
    """Deletion, and the undoing of uploads that failed. Safe to use from many threads."""

    def __init__(
        self, originals: Originals, *, catalog: Catalog, store: BlobStore, keys: KeyScheme, orders: Orders
    ) -> None:
        self._originals = originals
        self._catalog = catalog
        self._store = store
        self._keys = keys
        self._orders = orders

    def delete(self, ident: str, *, trash_s: float) -> None:
        """Hide the image; then, unless it goes to the trash, remove it. Errors: as `Library.delete`."""
        jobs = self._jobs(check_ident(ident), for_good=not trash_s)
        image = self._catalog.begin_delete(check_ident(ident), trash_s=trash_s, jobs=jobs)
        self._originals.forget(ident, in_catalog=True)
        if trash_s:
            return
        try:
            self._finish_delete(image.ident)
        except LazypixError as error:  # it is deleted, and stays so; the sweeper removes what is left
            log.warning("%s is deleted, but not all of its blobs are removed yet: %s", ident, error)

    def undelete(self, ident: str) -> Image:
        """Have a trashed image back. Errors: as `Library.undelete`."""
        jobs = self._orders.restored(check_ident(ident)) + self._orders.purged(ident, self._variants(ident))
        self._catalog.undelete(ident, jobs=jobs)
        self._originals.forget(ident, in_catalog=True)
        return self._originals.get(ident)

    def remove_blobs(self, ident: str) -> None:
        """Remove all blobs of an image that is deleted from the store.

        Raises:
            StoreFailed: some of them may be there still.
        """
        if self._store.capabilities.lists_prefixes:
            self._store.delete_prefix(self._keys.folder(ident))
        else:
            for key in self._known_keys(ident):
                self._store.delete(key)

    def retract(self, ident: str, claim: str) -> None:
        """Undo a claim of our own. The catalog decides first: what is not ours any more is not touched."""
        if self._catalog.withdraw(ident, claim):
            self.remove_blobs(ident)
            self._catalog.abandon(ident, claim)

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
            if not self._catalog.empty_trash(ident, jobs=self._jobs(ident, for_good=True)):
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

    def _finish_delete(self, ident: str) -> None:
        self._originals.forget(
            ident, in_catalog=True
        )  # again: whoever began the deletion may have been killed before
        self.remove_blobs(ident)
        self._catalog.end_delete(ident)

    def _jobs(self, ident: str, *, for_good: bool) -> list[NewJob]:
        """Return what is to be done elsewhere when an image is deleted; `for_good` what is known of it goes."""
        variants = self._variants(ident)
        return self._orders.purged(ident, variants) + (self._orders.deleted(ident, variants) if for_good else [])

    def _variants(self, ident: str) -> list[StoredVariant]:
        """Return the variants of an image, if anybody elsewhere wants to know."""
        return self._catalog.variants.of(ident) if self._orders.replicas or self._orders.purges else []

    def _known_keys(self, ident: str) -> Iterator[str]:
        """Yield the keys that an image may have, for stores that cannot list them."""
        for variant in self._catalog.variants.of(ident):
            yield self._keys.folder(ident) + variant.name
        for format_name in READABLE:
            yield self._keys.original(ident, by_name(format_name).extension)
        yield self._keys.sidecar(ident)
