"""The rows of API keys: made, found, revoked; and what of their quotas is used.

An image counts for the key that it was uploaded with from the claim of its ident until its blobs are gone: in the
trash it counts still. The counters are changed in the transactions that make rows of images begin or cease to count,
so that they always are what counting the rows would tell.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Row,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)

from lazypix.catalog.database import Conflict, Database
from lazypix.catalog.tables import api_keys
from lazypix.catalog.values import DELETED, moment
from lazypix.credentials import ApiKey, Scope, check_scopes
from lazypix.errors import BadRequest, NotFound, QuotaExceeded, StoreFailed, TooManyRequests, Unauthorized

_TRIES = 3
_LONGEST_NAME = 200
_MOST = 2**31 - 1
_MOST_BYTES = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How much a key may have and do; 0: as much as comes."""

    max_images: int = 0
    """Images held at once."""
    max_bytes: int = 0
    """Of their originals."""
    per_minute: int = 0
    """Requests that need a key, in each minute of the clock."""

    def __post_init__(self) -> None:
        bounds = {"max_images": _MOST, "max_bytes": _MOST_BYTES, "per_minute": _MOST}
        for name, most in bounds.items():
            if not 0 <= getattr(self, name) <= most:
                raise BadRequest(f"{name}={getattr(self, name)} is not accepted; accepted: 0 (no limit) to {most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is known of a key: all but its secret."""

    id: str
    name: str
    """Its owner's, for people."""
    hash: str = field(repr=False)
    """SHA-256 of the secret, hex."""
    scopes: tuple[Scope, ...]
    created: datetime
    """UTC."""
    revoked: datetime | None
    """UTC; None: it is good."""
    quotas: Quotas
    images: int
    """Images that are held."""
    bytes: int
    """Of their originals."""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able values, without the hash."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": list(self.scopes),
            "created": self.created.isoformat(),
            "revoked": self.revoked.isoformat() if self.revoked else None,
            "images": self.images,
            "max_images": self.quotas.max_images or None,
            "bytes": self.bytes,
            "max_bytes": self.quotas.max_bytes or None,
            "per_minute": self.quotas.per_minute or None,
        }


class KeyRows:
    """The keys' table; errors as `Catalog`'s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def make(self, name: str, scopes: Collection[str], quotas: Quotas | None = None) -> tuple[KeyRecord, ApiKey]:
        """Make a key. It is told here once: its secret is kept nowhere.

        Raises:
            BadRequest: the name is empty or long, or a scope does not exist.
        """
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise BadRequest(
                f"name={name[:40]!r} is not accepted; accepted: 1 to {_LONGEST_NAME} printable characters"
            )
        quotas = quotas or Quotas()
        row = {
            "name": name,
            "scopes": ",".join(check_scopes(scopes)),
            "created_us": time.time_ns() // 1000,
            "max_images": quotas.max_images,
            "max_bytes": quotas.max_bytes,
            "per_minute": quotas.per_minute,
        }
        for _ in range(_TRIES):
            key = ApiKey.new()
            try:
                with self._database.writing() as connection:
                    connection.execute(insert(api_keys).values(row | {"id": key.id, "hash": key.hash}))
            except Conflict:  # the id is short
                continue
            return self.get(key.id), key
        raise StoreFailed("The catalog refused the key")

    def find(self, id: str) -> KeyRecord | None:
        """Return a key, also one that was revoked; None: there never was one of this id."""
        with self._database.reading() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == id)).one_or_none()
        return _record(row) if row is not None else None

    def get(self, id: str) -> KeyRecord:
        """Return a key.

        Raises:
            NotFound: there never was one of this id.
        """
        found = self.find(id)
        if found is None:
            raise _unknown(id)
        return found

    def list(self) -> list[KeyRecord]:
        """Return all keys, also those that were revoked, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_us, api_keys.c.id))
            return [_record(row) for row in rows]

    def any(self) -> bool:
        """Tell whether a key was ever made, be it revoked by now."""
        with self._database.reading() as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).one_or_none() is not None

    def revoke(self, id: str) -> KeyRecord:
        """Make a key good for nothing, from now on and for ever; a second time changes nothing.

        Its images stay, and count for it.

        Raises:
            NotFound: there never was one of this id.
        """
        good = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_us.is_(None))
        with self._database.writing() as connection:
            connection.execute(good.values(revoked_us=time.time_ns() // 1000))
        return self.get(id)

    def count_request(self, id: str) -> None:
        """Count a request against the key's quota of this minute, by the database's clock.

        Raises:
            TooManyRequests: it is used up; how long the minute lasts is in the error.
        """
        mine = select(api_keys, self._now().label("now_us")).where(api_keys.c.id == id).with_for_update()
        with self._database.writing() as connection:
            if not self._database.is_sqlite:  # a count that is lost with a crash of the database costs nothing
                connection.execute(text("SET LOCAL synchronous_commit = off"))
            row = connection.execute(mine).one_or_none()
            if row is None:
                raise _unknown(id)
            minute, second = divmod(int(row.now_us) // 1_000_000, 60)
            if row.minute == minute + 1:  # the time was read before the row was waited for
                minute, second = row.minute, 0
            requests = row.requests if row.minute == minute else 0
            if row.per_minute and requests >= row.per_minute:
                raise TooManyRequests(
                    f"The API key {id} may make {row.per_minute} requests a minute, and has; "
                    f"again in {60 - second} seconds",
                    retry_after_s=60 - second,
                )
            counted = update(api_keys).where(api_keys.c.id == id)
            connection.execute(counted.values(minute=minute, requests=requests + 1))

    def check_room(self, id: str, size: int) -> None:
        """Refuse early what `count_new` would refuse; `size` in bytes.

        Raises:
            QuotaExceeded, Unauthorized, BadRequest: as `count_new`.
        """
        with self._database.reading() as connection:
            _check_room(connection, id, size)

    def _now(self) -> ColumnElement[int]:
        """Return the time of the database's clock, microseconds since 1970; for SQLite, of this machine's."""
        if self._database.is_sqlite:
            return literal(time.time_ns() // 1000, BigInteger)
        return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)


def count_new(connection: Connection, row: Mapping[str, Any]) -> None:
    """Count a new row of an image for its owner, if it has one; one that is claimed only if there is room.

    Last in its transaction: the key's row is what all uploads of a key wait for.

    Raises:
        QuotaExceeded: there is no room.
        Unauthorized: the key was revoked.
        BadRequest: there is no such key.
    """
    owner, size = row["owner"], row["size"]
    if owner is None or row["state"] in DELETED:
        return
    if row["state"] != "pending":  # copied: what is there is there
        _count(connection, owner, size, images=1)
        return
    images, held = api_keys.c.images + 1, api_keys.c.bytes + size
    room = (
        api_keys.c.revoked_us.is_(None),
        or_(api_keys.c.max_images == 0, images <= api_keys.c.max_images),
        or_(api_keys.c.max_bytes == 0, held <= api_keys.c.max_bytes),
    )
    mine = update(api_keys).where(api_keys.c.id == owner, *room).values(images=images, bytes=held)
    if connection.execute(mine).rowcount != 1:
        _lock(connection, owner)  # there may be room now: what others had was given back
        _check_room(connection, owner, size)
        _count(connection, owner, size, images=1)


def count_gone(connection: Connection, counted: Executable) -> None:
    """Take images off the counters of their owners; `counted` gives owner and size of each. Last, as `count_new`."""
    for owner, size in connection.execute(counted).all():
        if owner is not None:
            _count(connection, owner, size, images=-1)


def _count(connection: Connection, id: str, size: int, *, images: int) -> None:
    values = {"images": api_keys.c.images + images, "bytes": api_keys.c.bytes + images * size}
    connection.execute(update(api_keys).where(api_keys.c.id == id).values(values))


def check_room_beside(connection: Connection, id: str, size: int, *, begun: ColumnElement[int]) -> None:
    """Refuse what has no room beside the bytes that a key has `begun` to send, and may send all of.

    The key's row is locked: of many who begin at once each sees the others.

    Raises:
        QuotaExceeded, Unauthorized, BadRequest: as `count_new`.
    """
    _lock(connection, id)
    _check_room(connection, id, size, begun=connection.execute(select(begun)).scalar_one())


def _lock(connection: Connection, id: str) -> None:
    """Have a key's row stay as it is read from now on, until the end of the transaction."""
    connection.execute(select(api_keys.c.id).where(api_keys.c.id == id).with_for_update())


def _check_room(connection: Connection, id: str, size: int, *, begun: int = 0) -> None:
    row = connection.execute(select(api_keys).where(api_keys.c.id == id)).one_or_none()
    if row is None:
        raise BadRequest(f"There is no API key {id[:40]}, whose the image could be; `lazypix keys list` lists them")
    if row.revoked_us is not None:
        raise Unauthorized(f"The API key {id} was revoked")
    if row.max_images and row.images + 1 > row.max_images:
        raise QuotaExceeded(f"The API key {id} may have {row.max_images} images, and has {row.images}; delete some")
    if row.max_bytes and row.bytes + begun + size > row.max_bytes:
        under_way = f", and {begun} of uploads that are under way" if begun else ""
        raise QuotaExceeded(
            f"The API key {id} may have images of {row.max_bytes} bytes together, and has {row.bytes}{under_way}; "
            f"this one has {size}"
        )


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        name=row.name,
        hash=row.hash,
        scopes=check_scopes(row.scopes.split(",")),
        created=moment(row.created_us),
        revoked=moment(row.revoked_us) if row.revoked_us is not None else None,
        quotas=Quotas(max_images=row.max_images, max_bytes=row.max_bytes, per_minute=row.per_minute),
        images=row.images,
        bytes=row.bytes,
    )


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no API key {id[:40]!r}")
