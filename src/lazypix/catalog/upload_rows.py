"""The rows of uploads that come in pieces: how far each is, and which pieces it has."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, cast, delete, func, insert, select, update

from lazypix.catalog.database import Conflict, Database
from lazypix.catalog.key_rows import check_room_beside
from lazypix.catalog.tables import parts, uploads
from lazypix.catalog.values import moment
from lazypix.errors import OffsetMismatch, UnknownUpload, UploadGone

_ENDED = -1
_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload in pieces: complete when `position` is `length`, and only then it has an `ident`."""

    id: str
    length: int
    """Bytes of the whole."""
    position: int
    """Bytes received: where the next piece begins."""
    pieces: int
    """How many there are."""
    fields: Mapping[str, str]
    """What its client said of it, by name."""
    owner: str | None
    """The API key that it came with."""
    ident: str | None
    """Of the image that it became."""
    until: datetime
    """When what is there is thrown away, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of an upload, as it lies in the store."""

    position: int
    """Where it begins."""
    size: int
    """Bytes."""
    sha256: str
    token: str
    """Tells it from other pieces that were sent for this place, and came too late."""

    @property
    def name(self) -> str:
        """The blob's name below the upload's prefix; names are in the order of the pieces."""
        return f"{self.position:020d}-{self.token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPiece:
    """The piece with which an upload is complete."""

    upload: str
    position: int
    """Where it begins."""
    keep_s: float
    """For how long its client may ask what became of it."""


class UploadRows:
    """The tables of uploads in pieces, and of their pieces. Errors as `Catalog`'s.

    Each change names the position that it starts from, and happens only if the upload is still there: of several
    clients, or machines, that go on with an upload at once, one does.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, length: int, *, fields: Mapping[str, str], owner: str | None, keep_s: float) -> Upload:
        """Begin an upload of so many bytes, if its owner has room for it beside all that he has begun.

        Raises:
            QuotaExceeded, Unauthorized, BadRequest: he has not; see `key_rows.count_new`.
        """
        row: dict[str, Any] = {
            "id": secrets.token_hex(16), "length": length, "position": 0, "pieces": 0, "metadata": dict(fields),
            "owner": owner, "ident": None, "until_us": _in(keep_s),
        }  # fmt: skip
        with self._database.writing() as connection:
            if owner is not None:
                check_room_beside(connection, owner, length, begun=_begun_by(owner))
            connection.execute(insert(uploads).values(row))
        return self.get(row["id"])

    def get(self, upload: str) -> Upload:
        """Return what is known of an upload.

        Raises:
            UnknownUpload: there is none of this id.
            UploadGone: its time is over.
        """
        query = select(uploads).where(uploads.c.id == upload, uploads.c.position != _ENDED)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise UnknownUpload(f"There is no upload {upload[:40]}")
        if row.until_us <= _in(0):
            raise UploadGone(f"The upload {upload} was not gone on with in time; begin it anew")
        return _upload_of(row)

    def advance(self, upload: str, part: Part, *, keep_s: float) -> bool:
        """Record a piece that lies in the store, if the upload ends where it begins; return whether it did."""
        values = {
            "position": part.position + part.size, "pieces": uploads.c.pieces + 1, "until_us": _in(keep_s)
        }  # fmt: skip
        row = {"upload": upload, "position": part.position, "size": part.size}
        try:
            with self._database.writing() as connection:
                if (
                    connection.execute(update(uploads).where(*_at(upload, part.position)).values(values)).rowcount
                    != 1
                ):
                    return False
                connection.execute(insert(parts).values(**row, sha256=part.sha256, token=part.token))
        except Conflict:
            return False
        return True

    def complete(self, connection: Connection, last: LastPiece, ident: str) -> None:
        """Record, in the transaction that makes it exist, which image an upload became.

        Raises:
            OffsetMismatch: the upload does not stand where its last piece begins (any more).
        """
        values = {"position": uploads.c.length, "ident": ident, "until_us": _in(last.keep_s)}
        done = connection.execute(update(uploads).where(*_at(last.upload, last.position)).values(values))
        if done.rowcount != 1:
            raise OffsetMismatch("Another piece came first; ask how far the upload is")

    def parts(self, upload: str) -> list[Part]:
        """Return the pieces of an upload in their order."""
        query = select(parts).where(parts.c.upload == upload).order_by(parts.c.position)
        with self._database.reading() as connection:
            return [
                Part(position=row.position, size=row.size, sha256=row.sha256, token=row.token)
                for row in connection.execute(query)
            ]

    def end(self, upload: str) -> bool:
        """Have nobody go on with an upload, so that its pieces can be removed; return whether there was one."""
        ended = update(uploads).where(uploads.c.id == upload, uploads.c.position != _ENDED)
        with self._database.writing() as connection:
            return connection.execute(ended.values(position=_ENDED, until_us=0)).rowcount == 1

    def forget(self, upload: str) -> None:
        """Remove the row of an upload that has ended and whose pieces are removed."""
        with self._database.writing() as connection:
            connection.execute(delete(uploads).where(uploads.c.id == upload, uploads.c.position == _ENDED))

    def forget_parts(self, upload: str) -> None:
        """Remove the rows of an upload's pieces, which are removed."""
        with self._database.writing() as connection:
            connection.execute(delete(parts).where(parts.c.upload == upload))

    def end_expired(self) -> list[str]:
        """End the uploads whose time is over; return the ids of those that have ended, some at a time."""
        due = select(uploads.c.id).where(uploads.c.until_us <= _in(0)).order_by(uploads.c.until_us).limit(_AT_ONCE)
        with self._database.reading() as connection:
            found = list(connection.execute(due).scalars())
        if not found:
            return []
        # Asked again: one of them may just have got another piece, and lives on.
        over = update(uploads).where(uploads.c.id.in_(found), uploads.c.until_us <= _in(0))
        with self._database.writing() as connection:
            ended = connection.execute(over.values(position=_ENDED, until_us=0).returning(uploads.c.id))
            return list(ended.scalars())

    def known(self, ids: Collection[str]) -> set[str]:
        """Return which of these uploads have a row."""
        with self._database.reading() as connection:
            return set(connection.execute(select(uploads.c.id).where(uploads.c.id.in_(ids))).scalars())


def _at(upload: str, position: int) -> tuple[Any, ...]:
    return uploads.c.id == upload, uploads.c.position == position, uploads.c.ident.is_(None)


def _begun_by(owner: str) -> ColumnElement[int]:
    """Return the bytes of uploads that are no images yet, and whose pieces lie in the store, as many as may come."""
    mine = uploads.c.owner == owner, uploads.c.ident.is_(None), uploads.c.position != _ENDED
    total = func.coalesce(func.sum(uploads.c.length), 0)
    return cast(select(total).where(*mine).scalar_subquery(), BigInteger)


def _upload_of(row: Row[Any]) -> Upload:
    return Upload(
        id=row.id, length=row.length, position=row.position, pieces=row.pieces, fields=row._mapping["metadata"],
        owner=row.owner, ident=row.ident, until=moment(row.until_us),
    )  # fmt: skip


def _in(seconds: float) -> int:
    return time.time_ns() // 1000 + round(seconds * 1_000_000)
