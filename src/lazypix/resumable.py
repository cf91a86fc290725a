"""Uploads that come in pieces, to any machine, and are gone on with after whatever broke.

A piece is received into a file of this machine, then stored as a blob of its own, and then the catalog says how far
the upload is. The last piece is not stored: with it all are put together, and become an image in the one transaction
that also says that the upload is complete. So an upload whose every byte is there is an image, or is gone.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from lazypix.catalog import Catalog
from lazypix.catalog.upload_rows import LastPiece, Part, Upload
from lazypix.errors import (
    BadRequest,
    BadUpload,
    BlobMissing,
    Busy,
    IdentTaken,
    LazypixError,
    OffsetMismatch,
    StoreFailed,
    TooLarge,
    UploadGone,
)
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.keys import KeyScheme, check_ident
from lazypix.originals.removing import Removals
from lazypix.originals.uploading import UNDO_S, JobsOf, Uploads, as_json
from lazypix.stores import BlobStore

__all__ = ["ResumableUploads", "Upload", "read_metadata"]

log = logging.getLogger("lazypix")

MOST_PIECES = 10_000
"""Pieces of one upload. Each is a row and a blob; S3 has the same bound for its own uploads in parts."""
_READS = 2  # before a piece that came over a network is said to be damaged
_COPY_BYTES = 1024 * 1024
_PASSING = 429
"""Too many requests: the one error of a client that passes with time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The parts of a library that pieces are kept in."""

    catalog: Catalog
    store: BlobStore
    keys: KeyScheme
    incoming: IncomingFolder


class ResumableUploads:
    """Uploads in pieces. Safe to use from many threads, processes and machines.

    What is there of an upload is kept for `keep_s` seconds after its last piece.
    """

    def __init__(self, uploads: Uploads, removals: Removals, where: Where, *, max_bytes: int, keep_s: float) -> None:
        self._uploads = uploads
        self._removals = removals
        self._catalog = where.catalog
        self._store = where.store
        self._keys = where.keys
        self._incoming = where.incoming
        self._max_bytes = max_bytes
        self._keep_s = keep_s

    def begin(self, length: int, *, fields: Mapping[str, str], owner: str | None = None) -> Upload:
        """Begin an upload of `length` bytes. `fields` are kept with it; `ident`, `filename` and `metadata` are used.

        Raises:
            BadUpload: it is empty, or `metadata` cannot be kept.
            BadRequest: `metadata` is no JSON object.
            TooLarge: it is over the limit.
            BadIdent, IdentTaken: the ident is malformed, or given already.
            QuotaExceeded: the key has no room for it.
        """
        if length == 0:
            raise BadUpload("The image is empty (0 bytes)")
        if length > self._max_bytes:
            raise TooLarge(f"The image is over the limit of {self._max_bytes} bytes ({self._max_bytes >> 20} MiB)")
        as_json(read_metadata(fields.get("metadata", "")))
        ident = fields.get("ident")
        if ident and self._catalog.states([check_ident(ident)]):
            raise IdentTaken(f"The ident {ident} is taken; existing data is never replaced")
        return self._catalog.uploads.create(length, fields=fields, owner=owner, keep_s=self._keep_s)

    def get(self, upload: str) -> Upload:
        """Return how far an upload is.

        Raises:
            UnknownUpload, UploadGone: there is no such upload (any more).
        """
        return self._catalog.uploads.get(upload)

    def expect(self, upload: Upload, position: int) -> None:
        """Refuse a piece that begins elsewhere than where the upload ends, before it is received.

        Raises:
            OffsetMismatch: so it does.
            BadRequest: the upload has too many pieces.
        """
        if position != upload.position:
            raise OffsetMismatch(f"The piece begins at {position}; the upload is at {upload.position}")
        if upload.pieces >= MOST_PIECES:
            raise BadRequest(f"The upload came in {MOST_PIECES} pieces already; send larger ones")

    def receive(self, upload: Upload) -> Incoming:
        """Begin to receive the next piece, which has at most the bytes that are missing."""
        return self._incoming.new(max_bytes=upload.length - upload.position)

    def append(self, upload: Upload, piece: Incoming, *, jobs: JobsOf) -> Upload:
        """Take a piece that has been received; return how far the upload is then, durably.

        With the last one the image is verified, stored and published, and `jobs` say what is to be done with it.

        Raises:
            OffsetMismatch: the upload does not stand there any more; nothing was taken.
            BadUpload, UnsupportedImage, BrokenImage, …: as `Library.add`; the upload is gone.
            Busy, StoreFailed, StoreFull: not now. What came is kept, as far as it could be.
            UploadGone: earlier pieces are damaged or missing.
        """
        piece.finish()
        if piece.size and upload.position + piece.size == upload.length:
            return self._complete(upload, piece, jobs)
        if piece.size:
            self._keep(upload, piece)
        return self.get(upload.id)

    def end(self, upload: str) -> bool:
        """Throw an upload away, with all its pieces; return whether there was one."""
        ended = self._catalog.uploads.end(upload)
        if ended:
            self._clear(upload)
        return ended

    def sweep(self) -> int:
        """Throw away what was not gone on with in time; return how many uploads."""
        removed = 0
        while ended := self._catalog.uploads.end_expired():
            for upload in ended:
                try:
                    self._clear(upload)
                except StoreFailed as error:
                    log.warning("the pieces of an upload are not removed yet, and tried again later: %s", error)
                    return removed
                removed += 1
        return removed

    def _clear(self, upload: str) -> None:
        """Remove what is there of an upload that has ended; its row last, so that nothing is forgotten."""
        self._remove_parts(upload)
        self._catalog.uploads.forget(upload)

    def _remove_parts(self, upload: str) -> None:
        for part in self._catalog.uploads.parts(upload):
            self._store.delete(self._key(upload, part))
        if self._store.capabilities.lists_prefixes:  # of those that came too late some may be left
            self._store.delete_prefix(self._keys.parts(upload))
        self._catalog.uploads.forget_parts(upload)

    def _key(self, upload: str, part: Part) -> str:
        return self._keys.parts(upload) + part.name

    def _keep(self, upload: Upload, piece: Incoming) -> None:
        """Store a piece, and say so in the catalog. A crash in between leaves a blob that goes with the upload."""
        part = Part(
            position=upload.position, size=piece.size, sha256=piece.sha256, token=secrets.token_hex(4)
        )  # fmt: skip
        self._store.create(self._key(upload.id, part), piece.path)
        if not self._catalog.uploads.advance(upload.id, part, keep_s=self._keep_s):
            self._store.delete(self._key(upload.id, part))
            self._check_unmoved(upload)
            raise OffsetMismatch("Another piece came first; ask how far the upload is")

    def _check_unmoved(self, upload: Upload) -> None:
        """Make sure that nobody else went on with the upload.

        Raises:
            OffsetMismatch, UnknownUpload, UploadGone: so somebody did, or ended it.
        """
        now = self.get(upload.id)
        if now.position != upload.position:
            raise OffsetMismatch(f"Another piece came first: the upload is at {now.position}")

    def _complete(self, upload: Upload, piece: Incoming, jobs: JobsOf) -> Upload:
        last = LastPiece(upload=upload.id, position=upload.position, keep_s=self._keep_s)
        try:
            with self._whole(upload, piece) as whole:
                self._uploads.add(whole, jobs=jobs, last=last, owner=upload.owner, **_named(upload.fields))
        except OffsetMismatch:
            raise
        except LazypixError as error:
            self._check_unmoved(upload)
            told = self._judged(upload, error)
            if told.status >= 500 or told.status == _PASSING:
                self._keep_most(upload, piece)
            else:
                self.end(upload.id)
            raise told from error
        try:
            self._remove_parts(upload.id)
        except LazypixError as error:
            log.warning("the pieces of an upload are not removed yet, and tried again later: %s", error)
        return self.get(upload.id)

    def _judged(self, upload: Upload, error: LazypixError) -> LazypixError:
        """Tell an ident that others have from one that was claimed for this upload by a process that was killed."""
        ident = upload.fields.get("ident")
        if not isinstance(error, IdentTaken) or not ident or self._catalog.states([ident]).get(ident) != "pending":
            return error
        claim = self._catalog.take_over(ident, older_than_s=UNDO_S)
        if claim is not None:
            self._removals.retract(ident, claim)
        return Busy(f"An upload of {ident} is under way, or broke off; go on with this one in a while")

    def _whole(self, upload: Upload, piece: Incoming) -> AbstractContextManager[Incoming]:
        """Give a file with all pieces, of which `piece` is the last."""
        return self._joined(upload, piece) if upload.position else nullcontext(piece)

    @contextmanager
    def _joined(self, upload: Upload, piece: Incoming) -> Iterator[Incoming]:
        with self._incoming.new(max_bytes=upload.length) as whole:
            for part in self._catalog.uploads.parts(upload.id):
                self._copy(upload, part, whole)
            whole.copy(piece.path)
            if whole.size != upload.length:
                raise UploadGone("Pieces of the upload are missing; begin it anew")
            yield whole

    def _copy(self, upload: Upload, part: Part, whole: Incoming) -> None:
        """Append a piece, as it was received or not at all."""
        for _ in range(_READS):
            with self._incoming.new(max_bytes=part.size) as copy:
                try:
                    for data in self._store.read(self._key(upload.id, part)):
                        copy.write(data)
                except (BlobMissing, TooLarge):
                    continue
                copy.finish()
                if copy.sha256 == part.sha256:
                    whole.copy(copy.path)
                    return
        log.error("a piece of upload %s is damaged or missing in the store", upload.id)
        raise UploadGone("A piece of the upload is damaged; begin it anew")

    def _keep_most(self, upload: Upload, piece: Incoming) -> None:
        """Keep a last piece with which the upload could not be completed now, but for its last byte.

        With that one its client asks again for what remains to be done.
        """
        try:
            with self.receive(upload) as most, piece.path.open("rb") as file:
                while most.size < piece.size - 1:
                    most.write(file.read(min(_COPY_BYTES, piece.size - 1 - most.size)))
                most.finish()
                if most.size:
                    self._keep(upload, most)
        except (LazypixError, OSError) as error:  # then its client sends the piece again
            log.info("the last piece of an upload was not kept: %s", type(error).__name__)


def read_metadata(text: str) -> dict[str, Any]:
    """Read what a caller keeps with an image: a JSON object, or nothing.

    Raises:
        BadRequest: it is none.
    """
    if not text.strip():
        return {}
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise BadRequest(f"metadata={text[:64]!r} is not accepted; accepted: a JSON object")
    return metadata


def _named(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what the fields of an upload say of its image."""
    return {
        "ident": fields.get("ident") or None,
        "filename": fields.get("filename") or None,
        "metadata": read_metadata(fields.get("metadata", "")),
    }
