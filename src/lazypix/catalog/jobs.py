"""The table of jobs: what is to be done, whose turn it is, and who does it.

::

    added ──> waiting ──> running ──> (row removed)
      │          ^          │ failed, or its token ran out
      ├> later ──┤ due <────┴──> dead ──> waiting, by hand
      └> held ───┘ the rest of its batch is done
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    bindparam,
    cast,
    delete,
    exists,
    extract,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from lazypix.catalog.database import Conflict, Database
from lazypix.catalog.job_values import IDLE, NORMAL, SOON, Job, JobState, NewJob, as_text, job_of, row_of
from lazypix.catalog.tables import jobs
from lazypix.catalog.turns import Line
from lazypix.errors import StoreFailed

__all__ = ["IDLE", "NORMAL", "SOON", "Job", "JobRows", "JobState", "NewJob"]

_AT_ONCE = 500
"""Rows that one transaction moves: more would keep the others waiting."""
_QUEUED = ("waiting", "later")

Add = Callable[[Sequence[NewJob]], None]


class JobRows:
    """The jobs' table. Safe to use from many threads and processes; errors as `Catalog`'s.

    A job that was taken is its taker's until `lease_s` seconds have passed, unless it is renewed; then others may.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.announce: Callable[[Sequence[str]], None] = lambda _: None
        """Called with the ids of jobs that wait now, after each commit that made them wait; must not take long."""

    # --- adding ------------------------------------------------------------------------------------------------

    def add(self, wanted: Sequence[NewJob]) -> None:
        """Add jobs; one whose `unique_key` a waiting job has is left out."""
        with self.adding() as (_, add):
            add(wanted)

    def ensure(self, kind: str, *, in_s: float) -> None:
        """Add a job of a kind of which there is one at any time, unless there is; it begins within `in_s` seconds."""
        with self._database.reading() as connection:
            if self._some(connection, jobs.c.kind == kind, jobs.c.state.in_((*_QUEUED, "running"))):
                return
        due_in_s = random.uniform(0, in_s)  # noqa: S311  # jitter, not a secret
        self.add([NewJob(kind=kind, unique_key=kind, priority=IDLE, due_in_s=due_in_s)])

    @contextmanager
    def adding(self) -> Iterator[tuple[Connection, Add]]:
        """Give a transaction, and what adds jobs in it; they are announced when it is committed."""
        added: list[str] = []
        with self._database.writing() as connection:
            yield connection, lambda wanted: added.extend(self._insert(connection, wanted))
        self._announce(added)

    def _insert(self, connection: Connection, wanted: Sequence[NewJob]) -> list[str]:
        """Insert jobs; return the ids of those that wait now."""
        if not wanted:
            return []
        line, now = Line(connection), self._now(connection)
        rows = [row_of(job, now) for job in wanted]
        for row, job_id in zip(rows, sorted(row["id"] for row in rows), strict=True):
            row["id"] = job_id  # those of one moment are in the order in which they were given
            if row["state"] == "waiting":
                row["turn"] = line.turn(row["priority"], row["caller"], row["cost"])
        dialect = sqlite if self._database.is_sqlite else postgresql
        inserted = dialect.insert(jobs).on_conflict_do_nothing().returning(jobs.c.id, jobs.c.state)
        ids = [row.id for row in connection.execute(inserted, rows) if row.state == "waiting"]
        for batch in {job.batch for job in wanted if job.waits and job.batch is not None}:
            ids += self._release(connection, batch)
        return ids

    # --- carrying out ------------------------------------------------------------------------------------------

    def take(self, kinds: Collection[str], *, lease_s: float) -> Job | None:
        """Take the job of these kinds whose turn it is, if there is one.

        Of many who take at the same time each gets another.
        """
        self.wake()
        for kind in self._in_turn(kinds):
            mine = (jobs.c.state == "waiting", jobs.c.kind == kind)
            job = self._take(lease_s, *mine, order=(jobs.c.priority, jobs.c.turn, jobs.c.id))
            if job is not None:
                return job
        return None

    def take_by_id(self, job_id: str, kinds: Collection[str], *, lease_s: float) -> Job | None:
        """Take one job if it waits, and is of these kinds; anything may be asked for."""
        self.wake()
        return self._take(lease_s, jobs.c.id == job_id, jobs.c.state == "waiting", jobs.c.kind.in_(kinds))

    def get(self, job_id: str) -> Job | None:
        """Return a job, if it is not done yet."""
        with self._database.reading() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        return job_of({**row._mapping}) if row is not None else None

    def renew(self, job: Job, *, lease_s: float) -> bool:
        """Keep a job for `lease_s` seconds from now; False when it is somebody else's by now."""
        with self._database.writing() as connection:
            until = self._now(connection) + int(lease_s * 1e6)
            return connection.execute(update(jobs).where(*_is_mine(job)).values(due_us=until)).rowcount == 1

    def done(self, job: Job) -> bool:
        """Remove a job that was carried out; False when it is somebody else's by now."""
        return self._finish(job, lambda connection: connection.execute(delete(jobs).where(*_is_mine(job))).rowcount)

    def failed(self, job: Job, error: str, *, again_in_s: float | None) -> bool:
        """Record that an attempt failed: to be tried again so many seconds later; None: it is dead, until a `retry`.

        False when the job is somebody else's by now.
        """
        if again_in_s is not None:
            return self._later(job, again_in_s, error=as_text(error))
        dead = update(jobs).where(*_is_mine(job))
        values = {"state": "dead", "token": None, "error": as_text(error), "turn": 0}
        return self._finish(job, lambda connection: connection.execute(dead.values(values)).rowcount)

    def give_back(self, job: Job, *, in_s: float = 0) -> bool:
        """Give a job back as if it had not been taken, to be begun in so many seconds; False when it is not ours."""
        return self._later(job, in_s, attempts=jobs.c.attempts - 1)

    def repeat(self, job: Job, *, in_s: float, error: str | None = None) -> bool:
        """Have a job done once more in so many seconds, as if it were new; False when it is not ours any more."""
        return self._later(job, in_s, attempts=0, error=None if error is None else as_text(error))

    def wake(self) -> None:
        """Let those wait whose time has come, and those whose taker did not renew them."""
        with self._database.reading() as connection:
            now = self._now(connection)
            woken = [self._some(connection, jobs.c.state == state, jobs.c.due_us <= now) for state in _TIMED]
        if any(woken):
            self._line_up_due()

    # --- messages ----------------------------------------------------------------------------------------------

    def unannounced(self, *, for_s: float, limit: int = _AT_ONCE) -> list[str]:
        """Return ids of waiting jobs that nobody was told of for so long; each goes to one who asks.

        They count as told of now. Those whose time has come are among them at once.
        """
        self.wake()
        with self._database.writing() as connection:
            now = self._now(connection)
            old = select(jobs.c.id).where(jobs.c.state == "waiting", jobs.c.due_us <= now - int(for_s * 1e6))
            locked = old.order_by(jobs.c.due_us).limit(limit).with_for_update(skip_locked=True)
            ids = list(connection.execute(locked).scalars())
            _set(connection, [{"_id": job_id, "due_us": now} for job_id in ids], "due_us")
        return ids

    # --- looking after -----------------------------------------------------------------------------------------

    def find(
        self, *, kind: str | None = None, state: JobState | None = None, ident: str | None = None, limit: int = 100
    ) -> list[Job]:
        """Return jobs, oldest first."""
        query = select(jobs).where(*_conditions(kind, state, ident)).order_by(jobs.c.id).limit(limit)
        with self._database.reading() as connection:
            return [job_of({**row._mapping}) for row in connection.execute(query)]

    def count(self) -> dict[str, dict[JobState, int]]:
        """Return how many jobs there are, by kind and state; looks at all of them."""
        query = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
        found: dict[str, dict[JobState, int]] = {}
        with self._database.reading() as connection:
            for kind, state, number in connection.execute(query.order_by(jobs.c.kind, jobs.c.state)):
                found.setdefault(kind, {})[state] = int(number)
        return found

    def retry(self, *, kind: str | None = None, ident: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Let dead jobs wait again, with all their attempts before them; return how many."""
        number = 0
        for job_id in self._ids(_conditions(kind, "dead", ident, ids)):
            number += self._move(job_id, (jobs.c.state == "dead",), {"attempts": 0}, in_s=0)
        return number

    def drop(
        self,
        *,
        kind: str | None = None,
        state: JobState | None = None,
        ident: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> int:
        """Remove jobs, whatever they are for; return how many. What runs is not stopped, but not repeated either."""
        number = 0
        released: Sequence[str] = ()
        for job_id in self._ids(_conditions(kind, state, ident, ids)):
            with self._database.writing() as connection:
                gone = connection.execute(
                    delete(jobs).where(jobs.c.id == job_id).returning(jobs.c.batch)
                ).one_or_none()
                number += gone is not None
                if gone is not None and gone.batch is not None:
                    released = (*released, *self._release(connection, gone.batch))
        self._announce(released)
        return number

    # --- inside ------------------------------------------------------------------------------------------------

    def _in_turn(self, kinds: Collection[str]) -> Sequence[str]:
        """Return those of these kinds of which a job waits, the one whose turn it is first."""
        heads = []
        with self._database.reading() as connection:
            for kind in kinds:
                row = connection.execute(_HEAD, {"kind": kind}).one_or_none()
                if row is not None:
                    heads.append((*row, kind))
        return [head[-1] for head in sorted(heads)]

    def _take(self, lease_s: float, *mine: ColumnElement[bool], order: Sequence[Any] = ()) -> Job | None:
        with self._database.writing() as connection:
            query = select(jobs).where(*mine).order_by(*order).limit(1).with_for_update(skip_locked=True)
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            values = {
                "state": "running",
                "token": secrets.token_hex(16),
                "attempts": row.attempts + 1,
                "due_us": self._now(connection) + int(lease_s * 1e6),
            }
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(values))
        return job_of({**row._mapping, **values})

    def _finish(self, job: Job, act: Callable[[Connection], int]) -> bool:
        """Do what ends a job, and let those wait that were held until then."""
        released: Sequence[str] = []
        with self._database.writing() as connection:
            if job.batch is not None:
                # Of two that end at once, one shall see that the other has ended.
                held = (jobs.c.batch == job.batch, jobs.c.state == "held")
                connection.execute(select(jobs.c.id).where(*held).order_by(jobs.c.id).with_for_update())
            finished = act(connection) == 1
            if finished and job.batch is not None:
                released = self._release(connection, job.batch)
        self._announce(released)
        return finished

    def _release(self, connection: Connection, batch: str) -> Sequence[str]:
        """Let the held jobs of a batch wait if the rest is done; return their ids."""
        rest = (jobs.c.batch == batch, jobs.c.waits.is_(False), jobs.c.state != "dead")
        if self._some(connection, *rest):
            return []
        rows = connection.execute(select(jobs).where(jobs.c.batch == batch, jobs.c.state == "held")).all()
        self._line_up(connection, rows, due_us=self._now(connection))
        return [row.id for row in rows]

    def _later(self, job: Job, in_s: float, **values: Any) -> bool:
        return self._move(job.id, _is_mine(job), values, in_s=in_s)

    def _move(self, job_id: str, mine: Sequence[ColumnElement[bool]], values: dict[str, Any], *, in_s: float) -> bool:
        """Put one job back into the queue, unless another waits there by now that does the same: then it goes."""
        for _ in range(3):
            try:
                with self._database.writing() as connection:
                    if connection.execute(delete(jobs).where(jobs.c.id == job_id, *mine, _has_twin())).rowcount:
                        return True
                    now = self._now(connection)
                    row = connection.execute(select(jobs).where(jobs.c.id == job_id, *mine)).one_or_none()
                    turn = Line(connection).turn(row.priority, row.caller, row.cost) if row and in_s <= 0 else 0
                    state = "later" if in_s > 0 else "waiting"
                    values |= {"state": state, "turn": turn, "token": None, "due_us": now + int(in_s * 1e6)}
                    moved = connection.execute(update(jobs).where(jobs.c.id == job_id, *mine).values(values)).rowcount
            except Conflict:  # the other came at this very moment; now it is seen
                continue
            if moved and in_s <= 0:
                self._announce([job_id])
            return moved == 1
        raise StoreFailed("The catalog is busy: a job could not be put back")

    def _line_up_due(self) -> None:
        with self._database.writing() as connection:
            now = self._now(connection)
            due = select(jobs).where(jobs.c.state == "later", jobs.c.due_us <= now).order_by(jobs.c.due_us)
            rows = connection.execute(due.limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
            self._line_up(connection, rows, due_us=0)  # nobody was told of them
        for job_id in self._ids([jobs.c.state == "running", jobs.c.due_us <= now]):
            lost = (jobs.c.state == "running", jobs.c.due_us <= now)
            self._move(job_id, lost, {"error": "Whoever carried it out was lost"}, in_s=0)

    @staticmethod
    def _line_up(connection: Connection, rows: Sequence[Row[Any]], *, due_us: int) -> None:
        line = Line(connection)
        turns = [
            {
                "_id": row.id,
                "state": "waiting",
                "due_us": due_us,
                "turn": line.turn(row.priority, row.caller, row.cost),
            }
            for row in rows
        ]
        _set(connection, turns, "state", "due_us", "turn")

    def _ids(self, conditions: Sequence[ColumnElement[bool]]) -> Iterator[str]:
        """Yield ids page by page; of jobs that are moved meanwhile too."""
        last = ""
        while True:
            query = select(jobs.c.id).where(*conditions, jobs.c.id > last).order_by(jobs.c.id).limit(_AT_ONCE)
            with self._database.reading() as connection:
                ids = list(connection.execute(query).scalars())
            yield from ids
            if len(ids) < _AT_ONCE:
                return
            last = ids[-1]

    @staticmethod
    def _some(connection: Connection, *conditions: ColumnElement[bool]) -> bool:
        return connection.execute(select(jobs.c.id).where(*conditions).limit(1)).first() is not None

    def _announce(self, ids: Sequence[str]) -> None:
        if ids:
            self.announce(ids)

    def _now(self, connection: Connection) -> int:
        """Return the time in microseconds by one clock for all machines: the database's."""
        if self._database.is_sqlite:
            return time.time_ns() // 1000
        return int(connection.execute(_CLOCK).scalar_one())


_TIMED: tuple[JobState, ...] = ("later", "running")
_CLOCK = select(cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger))
_HEAD = (
    select(jobs.c.priority, jobs.c.turn, jobs.c.id)
    .where(jobs.c.state == "waiting", jobs.c.kind == bindparam("kind"))
    .order_by(jobs.c.priority, jobs.c.turn, jobs.c.id)
    .limit(1)
)


def _set(connection: Connection, rows: Sequence[dict[str, Any]], *columns: str) -> None:
    """Set columns of several rows, which are named by `_id`."""
    if rows:
        changed = update(jobs).where(jobs.c.id == bindparam("_id")).values({n: bindparam(n) for n in columns})
        connection.execute(changed, rows)


def _has_twin() -> ColumnElement[bool]:
    """The condition that another job waits which would do the same."""
    other = jobs.alias()
    same = (other.c.unique_key == jobs.c.unique_key, other.c.state.in_(_QUEUED), other.c.id != jobs.c.id)
    return exists(select(other.c.id).where(*same))


def _is_mine(job: Job) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.id == job.id, jobs.c.state == "running", jobs.c.token == job.token


def _conditions(
    kind: str | None, state: JobState | None, ident: str | None, ids: Sequence[str] | None = None
) -> list[ColumnElement[bool]]:
    named = {"kind": kind, "state": state, "ident": ident}
    conditions: list[ColumnElement[bool]] = [
        jobs.c[name] == value for name, value in named.items() if value is not None
    ]
    return conditions if ids is None else [*conditions, jobs.c.id.in_(ids)]
