"""A job as a value: one that is to be added, and one as it lies in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lazypix.catalog.values import moment
from lazypix.keys import new_ident

JobState = Literal["waiting", "later", "held", "running", "dead"]
"""`waiting` for its turn; to be begun `later`; `held` for the rest of its batch; `running`; `dead`: given up."""

SOON, NORMAL, IDLE = 0, 10, 20
"""Priorities: somebody waits for it; the usual; when nothing else is to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is to be added. Carried out at least once: doing it twice must do no harm."""

    kind: str
    ident: str | None = None
    """The image it is about."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What its kind must know, as JSON."""
    priority: int = NORMAL
    """Lower is sooner: `SOON`, `NORMAL`, `IDLE`."""
    caller: str = ""
    """Whose turn it takes: callers take turns, whoever has how many jobs. 64 characters at most."""
    cost: int = 1
    """How many turns it takes."""
    batch: str | None = None
    """Names jobs that belong together."""
    waits: bool = False
    """Begin only when all jobs of the batch that do not wait are done or given up."""
    unique_key: str | None = None
    """Of jobs with the same key only one waits: one more would do the same. Not looked at for a job of a batch."""
    due_in_s: float = 0
    """Seconds before which it is not begun."""

    def __post_init__(self) -> None:
        if self.waits and self.batch is None:
            raise ValueError("a job that waits needs a batch to wait for")
        if self.cost < 1 or len(self.caller) > 64:
            raise ValueError("cost must be 1 or more, caller 64 characters or fewer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it lies in the table."""

    id: str
    """32 hex digits; sorts by the time at which it was added."""
    state: JobState
    kind: str
    ident: str | None
    payload: Mapping[str, Any] = field(repr=False)
    priority: int
    caller: str
    batch: str | None
    attempts: int
    """How often it was begun, this time included."""
    error: str | None
    """What the last attempt ended with."""
    created: datetime
    """UTC."""
    due: datetime
    """When it may be begun (`later`), until when it is taken (`running`); UTC."""
    token: str | None = field(default=None, repr=False)
    """Of who carries it out: what is done with the job afterwards is done for this token only."""

    def facts(self) -> dict[str, Any]:
        """Return what is known as JSON-able values, for those who look after jobs."""
        return {
            "id": self.id,
            "state": self.state,
            "kind": self.kind,
            "ident": self.ident,
            "priority": self.priority,
            "attempts": self.attempts,
            "created": self.created.isoformat(),
            "due": self.due.isoformat() if self.state in ("later", "running") else None,
            "error": self.error,
        }


def row_of(job: NewJob, now_us: int) -> dict[str, Any]:
    """Return the row of a job that is added now, before it has a turn."""
    return {
        "id": new_ident(),
        "state": "held" if job.waits else "later" if job.due_in_s > 0 else "waiting",
        "kind": job.kind,
        "ident": job.ident,
        "payload": dict(job.payload),
        "priority": job.priority,
        "caller": job.caller,
        "turn": 0,
        "cost": job.cost,
        "batch": job.batch,
        "waits": job.waits,
        "unique_key": job.unique_key if job.batch is None else None,
        "attempts": 0,
        "due_us": now_us + int(job.due_in_s * 1e6),
        "created_us": now_us,
    }


def job_of(row: Mapping[str, Any]) -> Job:
    """Return the job of a row."""
    return Job(
        id=row["id"],
        state=row["state"],
        kind=row["kind"],
        ident=row["ident"],
        payload=row["payload"],
        priority=row["priority"],
        caller=row["caller"],
        batch=row["batch"],
        attempts=row["attempts"],
        error=row["error"],
        created=moment(row["created_us"]),
        due=moment(row["due_us"]),
        token=row["token"],
    )


def as_text(error: str) -> str:
    """Return an error's text as any database takes it: without NUL and lone surrogates, and not without end."""
    return error.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:1000]
