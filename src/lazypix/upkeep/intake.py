"""Images of another library are taken in with all that is known of them, in an order that survives a crash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lazypix.catalog import DELETED, Image, State
from lazypix.errors import BlobExists, BlobMissing, Busy, IdentTaken, UnknownImage
from lazypix.filenames import base_name
from lazypix.library import Library
from lazypix.orders import Wish

Entry = tuple[Image, State]
Step = Literal["skip", "add", "mend", "trash", "undelete", "delete", "bury"]
Outcome = Literal["copied", "skipped", "deleted"]
GiveOriginal = Callable[[], AbstractContextManager[Path]]
"""Gives a file with the verified bytes of an original while it is used; whoever uses it may move it away."""

_ATTEMPTS = 5
_DAY_S = 86_400.0


def next_step(image: Image, state: State, there: Entry | None, *, follow: bool) -> Step:
    """Decide what to do with an image whose ident is in a state there, or has no row (None).

    With `follow` the library there becomes like the one where the image comes from: what was deleted there is
    deleted, what was undeleted is undeleted. Without, it only gets images that it does not have.

    Raises:
        IdentTaken: the ident has other bytes there, or is deleted there.
        Busy: somebody else is just uploading under this ident, or giving it up.
    """
    if there is None:
        return "bury" if state in DELETED else "add"
    known, its_state = there
    if state in DELETED and its_state in DELETED:
        return "skip"
    if known.sha256 != image.sha256:
        raise IdentTaken(f"The ident {image.ident} has other bytes there; existing data is never replaced")
    if its_state in ("pending", "withdrawn"):
        raise Busy(f"Somebody else's upload of {image.ident} is under way there, or given up; try again later")
    if its_state in DELETED:
        if state == "trashed":
            return "skip"
        raise IdentTaken(f"{image.ident} was deleted there; an ident is never given again")
    if state == its_state:
        return "mend" if known.damaged else "skip"
    return _change(image.ident, state, follow=follow)


def _change(ident: str, state: State, *, follow: bool) -> Step:
    """Decide for an image that is there, but in another of the states `ready` and `trashed`, or deleted here."""
    if follow:
        return "undelete" if state == "ready" else "trash" if state == "trashed" else "delete"
    if state == "ready":
        raise IdentTaken(f"{ident} is in the trash there; undelete it")
    return "skip"


class Intake:
    """Takes images into a library. Safe to use from many threads, and beside others that write to the library.

    The original is stored durably, and only then the image is written into the catalog, as it is for good. It was
    acknowledged once, and is never a claim that somebody could undo: whenever this is cut short a blob is left at
    most, which the next time is recognised by its SHA-256.
    """

    def __init__(self, library: Library, *, follow: bool) -> None:
        self._library = library
        self._catalog = library.catalog
        self._follow = follow

    def known(self, idents: Collection[str]) -> Mapping[str, Entry]:
        """Return what the library has under these idents."""
        return self._catalog.entries(idents)

    def take(self, image: Image, state: State, there: Entry | None, original: GiveOriginal) -> Outcome:
        """Take an image in, or have it known that it is deleted; `there` is what `known` told.

        Raises:
            IdentTaken, Busy: as `next_step`.
            StoreFailed, StoreFull: it could not be stored.
        """
        image = replace(image, filename=base_name(image.filename), damaged=False)
        for _ in range(_ATTEMPTS):
            step = next_step(image, state, there, follow=self._follow)
            try:
                return self._carry_out(step, image, state, original)
            except _Changed:
                there = self._catalog.entries([image.ident]).get(image.ident)
        raise Busy(f"{image.ident} is changed there all the time; try again later")

    def _carry_out(self, step: Step, image: Image, state: State, original: GiveOriginal) -> Outcome:
        if step == "skip":
            return "skipped"
        if step == "add":
            with original() as path:
                self._store(image, path)
            self._library.uploads.put_sidecar(image)
            trash_s = max(_DAY_S, self._library.undelete_s)
            if not self._catalog.adopt(image, state="trashed" if state == "trashed" else "ready", trash_s=trash_s):
                raise _Changed
            self._library.order(image, Wish())
            return "copied"
        if step == "mend":
            with original() as path:
                self._library.store.put(self._library.originals.key(image), path)
            self._catalog.health.mark(image.ident, damaged=False)
            self._library.originals.forget(image.ident)
            return "copied"
        return self._follow_deletion(step, image)

    def _store(self, image: Image, path: Path) -> None:
        """Store the original; one that is there already, of a run before or in a store that is common, stays."""
        key = self._library.originals.key(image)
        left = self._stored_sha256(key)
        if left is None:
            try:
                self._library.store.create(key, path)
            except BlobExists:  # since a moment ago, by another one that takes in the same image, or by an upload
                left = self._stored_sha256(key)
        if left not in (None, image.sha256):
            raise IdentTaken(f"The store there has other bytes of {image.ident}, of which its catalog does not know")

    def _stored_sha256(self, key: str) -> str | None:
        found = hashlib.sha256()
        try:
            self._library.store.head(key)
            for piece in self._library.store.read(key):
                found.update(piece)
        except BlobMissing:
            return None
        return found.hexdigest()

    def _follow_deletion(self, step: Step, image: Image) -> Outcome:
        ident, removals = image.ident, self._library.removals
        if step == "bury":
            if not self._catalog.adopt(image, state="deleting"):
                raise _Changed
            if self._stored_sha256(self._library.originals.key(image)) == image.sha256:
                removals.remove_blobs(ident)  # stored by a run before, which was killed then
            self._catalog.end_delete(ident)
            return "deleted"
        try:
            if step == "undelete":
                removals.undelete(ident)
                return "copied"
            if step == "trash":
                removals.delete(ident, trash_s=max(_DAY_S, self._library.undelete_s))
            else:
                removals.delete(ident, trash_s=0)
        except UnknownImage:
            raise _Changed from None
        return "deleted"


class _Changed(Exception):
    """Somebody else was faster: what is there must be looked at again."""
