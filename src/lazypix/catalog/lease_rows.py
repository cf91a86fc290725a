"""The rows of leases: one for each key that somebody holds, or held until it died."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, cast, delete, func, literal, text, update
from sqlalchemy.dialects import postgresql, sqlite

from lazypix.catalog.database import Database
from lazypix.catalog.tables import leases


class LeaseRows:
    """The leases' table; errors as `Catalog`'s.

    Times are those of the database's clock; for SQLite, whose processes share one machine, of that machine's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, key: str, token: str, *, ttl_s: float) -> int | None:
        """Give the lease of `key` to `token` unless another has it; return its fence, None: another has it."""
        assert ttl_s > 0
        now = self._now()
        insert: Any = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(leases)
        new = insert.values(key=_plain(key), token=token, fence=now, until_us=now + _microseconds(ttl_s))
        later: Any = func.max if self._database.is_sqlite else func.greatest
        taken = new.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "token": new.excluded.token,
                "fence": later(leases.c.fence + 1, new.excluded.fence),
                "until_us": new.excluded.until_us,
            },
            where=leases.c.until_us <= now,
        )
        with self._database.writing() as connection:
            self._may_be_lost(connection)
            fence = connection.execute(taken.returning(leases.c.fence)).scalar()
        return int(fence) if fence is not None else None

    def renew(self, key: str, token: str, *, ttl_s: float) -> bool:
        """Make a lease last for `ttl_s` from now on, if it has not ended."""
        assert ttl_s > 0
        now = self._now()
        mine = update(leases).where(leases.c.key == _plain(key), leases.c.token == token, leases.c.until_us > now)
        with self._database.writing() as connection:
            self._may_be_lost(connection)
            return connection.execute(mine.values(until_us=now + _microseconds(ttl_s))).rowcount == 1

    def release(self, key: str, token: str) -> bool:
        """End a lease; return whether it had not ended by itself."""
        mine = delete(leases).where(leases.c.key == _plain(key), leases.c.token == token)
        with self._database.writing() as connection:
            self._may_be_lost(connection)
            return bool(connection.execute(mine.returning(leases.c.until_us > self._now())).scalar())

    def sweep(self, *, older_than_s: float) -> int:
        """Remove the rows of leases that ended so long ago without being released; return how many."""
        ended = delete(leases).where(leases.c.until_us <= self._now() - _microseconds(older_than_s))
        with self._database.writing() as connection:
            return connection.execute(ended).rowcount

    def _now(self) -> ColumnElement[int]:
        if self._database.is_sqlite:
            return literal(time.time_ns() // 1000, BigInteger)
        return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)

    def _may_be_lost(self, connection: Connection) -> None:
        """Have the commit not wait for the disk: a lease that is lost with a crash of the database costs a render."""
        if not self._database.is_sqlite:
            connection.execute(text("SET LOCAL synchronous_commit = off"))


def _plain(key: str) -> str:
    """Return the key without what databases do not take for text; different keys stay different."""
    escaped = key.replace("\\", "\\\\").replace("\0", "\\0")
    return escaped.encode("utf-8", "backslashreplace").decode()


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
