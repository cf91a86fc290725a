"""Whose turn it is: jobs of one priority wait in a line in which callers alternate.

Start-time fair queueing: a job's turn is behind the one of its caller's last job, and not before what is being served
now. A caller with one job waits for one of each other caller, however many they have.
Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, select

from lazypix.catalog.tables import jobs


class Line:
    """Gives out turns within one transaction, from what waits in the table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next: dict[tuple[int, str], int] = {}

    def turn(self, priority: int, caller: str, cost: int) -> int:
        """Return the turn of one more job of a caller."""
        key = (priority, caller)
        if key not in self._next:
            self._next[key] = max(self._now_served(priority), self._behind(priority, caller))
        turn = self._next[key]
        self._next[key] += cost
        return turn

    def _now_served(self, priority: int) -> int:
        """Return the virtual time: the turn at the head of the line, or that of the last who left it."""
        of = select(jobs.c.turn).where(jobs.c.priority == priority)
        head = self._first(of.where(jobs.c.state == "waiting").order_by(jobs.c.turn))
        if head is not None:
            return head
        return self._first(of.where(jobs.c.state == "running").order_by(jobs.c.turn.desc())) or 0

    def _behind(self, priority: int, caller: str) -> int:
        """Return the turn behind the caller's last job that waits."""
        mine = (jobs.c.state == "waiting", jobs.c.priority == priority, jobs.c.caller == caller)
        return self._first(select(jobs.c.turn + jobs.c.cost).where(*mine).order_by(jobs.c.turn.desc())) or 0

    def _first(self, query: Select[Any]) -> int | None:
        value = self._connection.execute(query.limit(1)).scalar_one_or_none()
        return None if value is None else int(value)
