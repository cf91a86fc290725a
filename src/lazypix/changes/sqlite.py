"""Changes as a SQLite file tells them: a counter of commits is looked at, and a table of changes when it moved."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazypix.changes.feed import FeedLost, News

POLL_S = 0.05
"""How often the counter is looked at, while nothing happens."""

_MOST_AT_ONCE = 1000
_PATIENCE_S = 1.0


class SqliteFeed:
    """Reads the changes that other connections to the same file have written.

    Looking at `data_version` costs some microseconds, and no look at the disk; the table is read only when another
    connection has committed something. Whether the file is still the one of that name is looked at with each sign of
    life: an open connection goes on with one that was replaced.

    Source: SQLite documentation, "PRAGMA data_version".
    """

    def __init__(self, file: Path) -> None:
        """Open the database.

        Raises:
            FeedLost: it is not there, or cannot be read.
        """
        self._file = file
        with _translated():
            self._identity = _identity(file)
            address = f"{file.absolute().as_uri()}?mode=rw"  # to read a WAL database, its index is written to
            self._connection = sqlite3.connect(address, uri=True, timeout=_PATIENCE_S, isolation_level=None)
        try:
            with _translated():
                self._version = self._data_version()
                (self._last,) = self._connection.execute("SELECT coalesce(max(number), 0) FROM changes").fetchone()
        except BaseException:
            self.close()
            raise

    def ask(self) -> None:
        with _translated():
            if _identity(self._file) != self._identity:
                raise FeedLost("the file was replaced")

    def wait(self, timeout_s: float) -> News:
        deadline = time.monotonic() + timeout_s
        with _translated():
            while (version := self._data_version()) == self._version:
                if time.monotonic() >= deadline:
                    return News(answered=True)
                time.sleep(POLL_S)
            self._version = version  # before the table is read: what is committed meanwhile moves it once more
            return self._news()

    def close(self) -> None:
        self._connection.close()

    def _news(self) -> News:
        query = "SELECT number, ident FROM changes WHERE number > ? ORDER BY number LIMIT ?"
        rows = self._connection.execute(query, (self._last, _MOST_AT_ONCE + 1)).fetchall()
        if not rows:
            return News(answered=True)
        # Numbers have no gaps, and the oldest rows go: what does not begin with the next one is not all.
        incomplete = rows[0][0] != self._last + 1 or len(rows) > _MOST_AT_ONCE
        if incomplete:
            (self._last,) = self._connection.execute("SELECT max(number) FROM changes").fetchone()
            return News(answered=True, incomplete=True)
        self._last = rows[-1][0]
        return News(answered=True, idents=[ident for _, ident in rows])

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise FeedLost(f"{type(error).__name__}: {error}") from None
