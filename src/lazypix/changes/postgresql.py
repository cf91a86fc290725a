"""Changes as PostgreSQL tells them: LISTEN, on a connection of its own."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping

from lazypix.catalog.announcing import CHANNEL
from lazypix.changes.feed import ANSWER_S, CONNECT_S, FeedLost, News
from lazypix.errors import SettingsError

try:
    import psycopg
except ImportError:
    raise SettingsError("PostgreSQL needs another package: pip install 'lazypix[postgresql]'") from None

NAME = "lazypix changes"
"""By which the session is found in `pg_stat_activity`."""
_MOST_AT_ONCE = 2000


class PostgresqlFeed:
    """Listens on the channel to which the catalog announces, in a session of its own.

    The connection is used through libpq's own calls, none of which waits: what psycopg offers above them would wait
    for ever for a server that hangs. Whether notifications come through at all is tried out at first, with one to
    ourselves: a pooler that shares sessions would take the LISTEN, and pass nothing on.

    Source: PostgreSQL documentation, "LISTEN", "NOTIFY", and "libpq: Asynchronous Command Processing".
    """

    def __init__(self, arguments: Mapping[str, str | int]) -> None:
        """Connect. `arguments` are those of a connection, as psycopg takes them.

        Raises:
            FeedLost: it does not succeed in time.
        """
        try:
            options = {**arguments, "connect_timeout": round(CONNECT_S), "application_name": NAME}
            self._connection = psycopg.connect(autocommit=True, **options)  # type: ignore[arg-type]
        except (psycopg.Error, OSError) as error:
            raise FeedLost(_kind(error)) from None  # the text names hosts and users
        try:
            self._pg = self._connection.pgconn
            self._pg.nonblocking = 1
            self._poll = select.poll()
            self._poll.register(self._pg.socket, select.POLLIN)
            self._try_out()
        except BaseException:
            self.close()
            raise

    def ask(self) -> None:
        self._send(b"SELECT 1")

    def wait(self, timeout_s: float) -> News:
        payloads, answered = self._received(timeout_s)
        idents = [payload for payload in payloads if not payload.startswith(_TRIAL)]
        return News(idents=idents, answered=answered)

    def close(self) -> None:
        self._connection.close()

    def _try_out(self) -> None:
        trial = f"{_TRIAL}{self._pg.backend_pid}-{time.monotonic_ns()}"
        deadline = time.monotonic() + ANSWER_S
        self._send(b"LISTEN " + CHANNEL.encode())
        answered = heard = False
        while not (answered and heard):
            payloads, done = self._received(0.1)
            heard = heard or trial in payloads
            if done and not answered:
                answered = True
                self._send(f"NOTIFY {CHANNEL}, '{trial}'".encode())
            if time.monotonic() > deadline:
                raise FeedLost("notifications do not come through" if answered else "it does not answer")

    def _send(self, statement: bytes) -> None:
        try:
            self._pg.send_query(statement)
            self._pg.flush()  # so short that the socket takes it at once, or the server has long been stuck
        except psycopg.Error as error:
            raise FeedLost(_kind(error)) from None

    def _received(self, timeout_s: float) -> tuple[list[str], bool]:
        """Return the payloads that came, and whether a statement was finished."""
        try:
            if self._poll.poll(timeout_s * 1000):  # `select` knows no descriptors over 1023, and servers have many
                self._pg.consume_input()
            payloads: list[str] = []
            while len(payloads) < _MOST_AT_ONCE and (notify := self._pg.notifies()) is not None:
                payloads.append(notify.extra.decode("utf-8", "replace"))
            return payloads, self._has_finished()
        except (psycopg.Error, OSError) as error:
            raise FeedLost(_kind(error)) from None

    def _has_finished(self) -> bool:
        finished = False
        while not self._pg.is_busy():
            result = self._pg.get_result()
            if result is None:
                break
            if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
                state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"no reason"
                raise FeedLost(f"the database refused with {state.decode()}")
            finished = True
        return finished


_TRIAL = "?"  # no ident begins so


def _kind(error: Exception) -> str:
    return type(error).__name__
