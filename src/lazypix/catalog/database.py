"""The database under the catalog: SQLite or PostgreSQL, its connections, transactions and errors."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, case, create_engine, event, make_url, or_, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from lazypix.catalog.schema import upgrade
from lazypix.errors import SettingsError, StoreFailed, StoreFull

log = logging.getLogger("lazypix")

ACCEPTED = "sqlite:///<path> or postgresql://<user>@<host>:<port>/<database>"
_WAIT_S = 30
_POSTGRES: dict[str, str | int] = {
    "connect_timeout": 5,
    "options": f"-c statement_timeout={_WAIT_S * 1000} -c lock_timeout=10000 -c TimeZone=UTC",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_DISK_FULL = "53100"  # Source: PostgreSQL documentation, appendix A, "Error Codes"


class Conflict(Exception):
    """A row with this key exists."""


class Database:
    """Connections to one database, brought to the newest schema. Safe to use from many threads.

    Reads are single statements; a write is a transaction, durable when its block ends. Both raise `StoreFailed`
    when the database cannot do its work, `StoreFull` when no space is left, and `Conflict` for a key that exists.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = _make_engine(url)
        self._writer = self._engine.execution_options(writes=True)
        # SQLite has one writer at a time, and the others try again now and then: of many threads some went hungry for
        # seconds. Here they wait in a row; for other processes SQLite's own way is left.
        self._turn = threading.Lock() if self.is_sqlite else None
        try:
            with _translated():
                upgrade(self._engine, self._writer)
        except BaseException:
            self._engine.dispose()
            raise

    @classmethod
    def open(cls, url: str) -> Database:
        """Open a database by its URL; see `ACCEPTED`.

        Raises:
            SettingsError: it is malformed, of another kind, or its driver is not installed.
        """
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise SettingsError(f"The catalog's address is malformed; accepted: {ACCEPTED}") from None
        if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            return cls(parsed.set(drivername="postgresql+psycopg"))
        if parsed.drivername != "sqlite" or not parsed.database:
            raise SettingsError(f"catalog={parsed.drivername}:… is not accepted; accepted: {ACCEPTED}")
        return cls(parsed)

    @classmethod
    def sqlite(cls, path: str | Path) -> Database:
        """Open (or make) a SQLite database file, in WAL mode."""
        return cls(URL.create("sqlite", database=str(path)))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is one file on this machine."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for one that is elsewhere."""
        return Path(self._url.database) if self.is_sqlite and self._url.database else None

    def connection_arguments(self) -> dict[str, str | int]:
        """Return the arguments with which psycopg connects to this PostgreSQL database, secrets among them."""
        arguments = self._engine.dialect.create_connect_args(self._url)[1]
        return {**arguments, **_POSTGRES}

    def __repr__(self) -> str:
        return f"Database({self._url.set(query={}).render_as_string(hide_password=True)!r})"

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Ask the database for a sign of life.

        On a new connection: an open one goes on with the SQLite file that was deleted or replaced under it.
        """
        fresh = _make_engine(self._url, poolclass=NullPool)
        with _translated(), fresh.connect() as connection:
            connection.execute(text("SELECT 1 FROM images LIMIT 1"))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for single statements."""
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction, which is committed at the end of the block."""
        with self._my_turn(), _translated(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Wait in a row for SQLite's one writer: by its own retries some would wait for ever."""
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=_WAIT_S):
            raise StoreFailed("The catalog is busy: others write to it for long")
        try:
            yield
        finally:
            self._turn.release()

    def upsert(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[dict[str, Any]],
        change: Sequence[str],
        *,
        fence: str,
    ) -> None:
        """Insert rows; of those whose key exists, set the columns `change`.

        `fence` is a column of numbers that never get less: a row with a greater one than the new row's stays as it
        is, unless the new row has 0 there.
        """
        keys: Any = [column.name for column in table.primary_key]
        new = (sqlite.insert if self.is_sqlite else postgresql.insert)(table)
        old, given = table.c[fence], new.excluded[fence]
        values = {name: new.excluded[name] for name in change} | {fence: case((given > old, given), else_=old)}
        statement = new.on_conflict_do_update(index_elements=keys, set_=values, where=or_(given == 0, given >= old))
        connection.execute(statement, rows)


def _make_engine(url: URL, **options: Any) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _WAIT_S, "isolation_level": None}, **options)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if "poolclass" not in options:
        # A connection is tried before it is used: one that broke while the database was away hurts nobody.
        options = {"pool_size": 10, "max_overflow": 20, "pool_timeout": 10, "pool_pre_ping": True}
    try:
        return create_engine(url, connect_args=_POSTGRES, **options)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise SettingsError("PostgreSQL needs another package: pip install 'lazypix[postgresql]'") from None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise Conflict from None
    except PoolTimeout as error:
        raise StoreFailed("The catalog is busy: no connection became free") from error
    except SQLAlchemyError as error:
        raise _failure(error) from error


def _failure(error: SQLAlchemyError) -> StoreFull | StoreFailed:
    """Say what went wrong without saying where: a driver's own text names hosts, users and files."""
    cause = getattr(error, "orig", None)
    if getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(cause, "sqlstate", "") == _DISK_FULL:
        return StoreFull("No space left for the catalog")
    log.debug("the catalog failed", exc_info=error)
    if isinstance(cause, sqlite3.Error):
        return StoreFailed(f"The catalog is not available ({cause})")
    kind = type(cause or error).__name__
    if isinstance(error, OperationalError):
        return StoreFailed(f"The catalog is not available ({kind})")
    return StoreFailed(f"The catalog failed ({kind})")


def _set_up_sqlite(connection: Any, _: object) -> None:
    _use_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
    connection.execute("PRAGMA foreign_keys=ON")


def _use_wal(connection: Any) -> None:
    """Switch to WAL, which SQLite refuses at once, without waiting, while another process does the same."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.002, 0.02))  # noqa: S311  # jitter, not a secret
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads first and then writes could not wait for it.

    Reads are single statements and need no transaction.
    Source: SQLite documentation, "Isolation In SQLite" and SQLITE_BUSY_SNAPSHOT.
    """
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
