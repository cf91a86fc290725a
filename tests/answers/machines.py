"""Machines with a common cache, for tests: their wires can be cut, and others can act between two of their steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from lazypix.answers import Asked, SharedAnswers, Ticket
from lazypix.cache import Cache, CacheFailed
from lazypix.cache.guarded import Guarded
from lazypix.cache.process import ProcessCache
from lazypix.http import Representation

QUIET_S, TTL_S = 30.0, 3600.0
ASKED = Asked(path="/i/cat/200x100.jpg", query="")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Wire(ProcessCache):
    """The way of one machine to the cache that all share: it can be cut, and others can act between two steps."""

    def __init__(self, shared: Cache) -> None:
        super().__init__()
        self._shared = shared
        self.cut = False
        self.before: Callable[[], None] = lambda: None

    def get(self, key: str) -> bytes | None:
        self._step()
        return self._shared.get(key)

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._step()
        self._shared.set(key, value, ttl_s=ttl_s)

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        self._step()
        return self._shared.add(key, value, ttl_s=ttl_s)

    def delete(self, key: str) -> None:
        self._step()
        self._shared.delete(key)

    def _step(self) -> None:
        self.before()
        if self.cut:
            raise CacheFailed("the wire is cut")


class Machine:
    """One of many machines with a common cache."""

    def __init__(self, shared: Cache, clock: Clock) -> None:
        self.wire = Wire(shared)
        self.answers = SharedAnswers(Guarded(self.wire, clock=clock), ttl_s=TTL_S, quiet_s=QUIET_S)

    def ticket(self, ident: str = "cat") -> Ticket:
        ticket = self.answers.ticket(ident)
        assert ticket is not None
        return ticket

    def finds(self, ident: str = "cat", asked: Asked = ASKED) -> bytes | None:
        """Return the body that this machine would send without looking at the catalog."""
        ticket = self.answers.ticket(ident)
        found = self.answers.get(ticket, asked) if ticket is not None else None
        if found is None:
            return None
        assert isinstance(found.body, bytes)
        return found.body

    def shares(self, body: bytes, ident: str = "cat", asked: Asked = ASKED) -> None:
        self.answers.set(self.ticket(ident), asked, representation(body, ident))


def representation(body: bytes = b"body", ident: str = "cat") -> Representation:
    return Representation(
        ident=ident, body=body, etag='"e"', modified=datetime(2026, 1, 2, tzinfo=UTC), headers=((b"content-type", b"image/jpeg"),)
    )  # fmt: skip
