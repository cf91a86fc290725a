"""A lease held while work goes on: waited for, renewed, and given back."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from lazypix.errors import Busy
from lazypix.lease import Lease, LeaseFailed, Leases

log = logging.getLogger("lazypix")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.01, 0.25
_LOOK_EVERY_S = 1.0


class Turn(Protocol):
    """Says of a piece of work whether it is this process' turn to keep what it makes."""

    @property
    def fence(self) -> int:
        """The number that goes with what is written: a greater one stays. 0: there is no lease, and no number."""
        ...

    def is_ours(self) -> bool:
        """Tell, without asking anybody, whether nobody else was given the work; False as soon as that is possible.

        After the work has ended: whether nobody was until then.
        """
        ...

    def is_confirmed(self) -> bool:
        """Ask who gives the leases whether the work is ours; False also when there is no answer, and no lease."""
        ...


class _NoLease:
    """The turn of one who works without a lease: `keeps` what it makes or does not."""

    fence = 0

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps

    def is_ours(self) -> bool:
        return self._keeps

    def is_confirmed(self) -> bool:
        return False


FREE: Turn = _NoLease(keeps=True)
"""There are no leases, or their server is away: the work may be done twice, and what is made is kept."""
PASSED: Turn = _NoLease(keeps=False)
"""Somebody else has the turn: it may have ended its work, or takes too long to be waited for. Nothing is kept."""


def _since_boot() -> float:
    """Return seconds that go on while the process is stopped, and where that can be had while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_CLOCK = _since_boot if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class _Held:
    """The turn of one who has the lease."""

    def __init__(
        self, lease: Lease, leases: Leases, *, asked_at: float, ttl_s: float, clock: Callable[[], float]
    ) -> None:
        self.lease = lease
        self._leases = leases
        self._ttl_s = ttl_s
        self._clock = clock
        self._until = asked_at + ttl_s - lease.early_s  # since before it was asked for: the server's began later
        self._lost = self._ended = False
        self.renew_at = asked_at + ttl_s / 3

    @property
    def fence(self) -> int:
        return self.lease.fence

    def is_ours(self) -> bool:
        return not self._lost and (self._ended or self._clock() < self._until)

    def is_confirmed(self) -> bool:
        try:
            return self.renew()
        except LeaseFailed:
            return False

    def renew(self) -> bool:
        """Have the lease last longer; False: it is lost.

        Raises:
            LeaseFailed: there is no answer; to be tried again.
        """
        asked_at = self._clock()
        self.renew_at = asked_at + self._ttl_s / 6  # if there is no answer
        if not self._leases.renew(self.lease, ttl_s=self._ttl_s):
            return False
        self._until = asked_at + self._ttl_s - self.lease.early_s
        self.renew_at = asked_at + self._ttl_s / 3
        return True

    def lose(self) -> None:
        self._lost = True
        log.warning("the lease of %s was given to another, or ended: what is made is not stored", self.lease.key)

    def give_back(self) -> None:
        was_ours = self.is_ours()
        try:
            released = self._leases.release(self.lease)
        except LeaseFailed as error:  # it ends by itself
            log.debug("the lease of %s was not released: %s", self.lease.key, error)
            released = was_ours
        self._ended, self._lost = True, not (was_ours and released)


class Holder:
    """Holds leases for the pieces of work of a process. Safe to use from many threads.

    While work goes on its lease is renewed, each third of `ttl_s`, by one thread for all. A holder that was stopped
    for longer finds that the work is not its own any more.
    """

    def __init__(self, leases: Leases, *, ttl_s: float, clock: Callable[[], float] = _CLOCK) -> None:
        """`leases` are closed with this."""
        self._leases = leases
        self._ttl_s = ttl_s
        self._clock = clock
        self._hurry = threading.Event()
        self._changed = threading.Condition()
        self._held: set[_Held] = set()
        self._closed = False
        self._renewer: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Holder({self._leases!r})"

    @contextmanager
    def hold(
        self,
        key: str,
        *,
        patience_s: float,
        is_done: Callable[[], bool] = lambda: False,
        may_wait: Callable[[], bool] = lambda: True,
    ) -> Iterator[Turn]:
        """Give the turn for `key`, when nobody else has it.

        It is waited for, `patience_s` seconds at most, and only until `is_done` tells (it is asked about once a
        second) that the work was done elsewhere: `PASSED` then; and when it is not to be had at once and `may_wait`
        says that nobody should wait. When the server of leases is away: `FREE`.

        Raises:
            Busy: `stop_waiting` was called.
        """
        turn = self._wait_for(key, patience_s, is_done, may_wait)
        if not isinstance(turn, _Held):
            yield turn
            return
        self._keep_renewed(turn)
        try:
            yield turn
        finally:
            with self._changed:
                self._held.discard(turn)
            turn.give_back()

    def stop_waiting(self) -> None:
        """Have nobody wait any more, from now on: who has no lease at once gets `Busy`."""
        self._hurry.set()

    def close(self) -> None:
        """End the renewing, and close the leases. A second time does nothing."""
        self.stop_waiting()
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._renewer is not None:
            self._renewer.join()
        self._leases.close()

    def _wait_for(
        self, key: str, patience_s: float, is_done: Callable[[], bool], may_wait: Callable[[], bool]
    ) -> Turn:
        began = self._clock()
        waits = False
        wait_s, look_at = _FIRST_WAIT_S, began + _LOOK_EVERY_S
        while True:
            asked_at = self._clock()
            try:
                lease = self._leases.take(key, ttl_s=self._ttl_s)
            except LeaseFailed as error:  # who asks a server sparingly has told of it: see `sharding`
                log.debug("working without a lease of %s: %s", key, error)
                return FREE
            if lease is not None:
                return _Held(lease, self._leases, asked_at=asked_at, ttl_s=self._ttl_s, clock=self._clock)
            waits = waits or may_wait()
            if not waits or asked_at >= began + patience_s:
                log.info("%s is not waited for any longer, and made here too", key)
                return PASSED
            if asked_at >= look_at:
                if is_done():
                    return PASSED
                look_at = asked_at + _LOOK_EVERY_S
            if self._hurry.wait(wait_s * random.uniform(0.5, 1.5)):  # noqa: S311  # jitter, not a secret
                raise Busy("Shutting down; ask again in a moment")
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _keep_renewed(self, turn: _Held) -> None:
        with self._changed:
            self._held.add(turn)
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew_all, name="lazypix-renew", daemon=True)
                self._renewer.start()
            self._changed.notify()

    def _renew_all(self) -> None:
        while (turn := self._next_due()) is not None:
            try:
                lost = not turn.renew()
            except LeaseFailed as error:
                log.debug("the lease of %s was not renewed: %s", turn.lease.key, error)
                continue
            if lost:
                with self._changed:
                    mine = turn in self._held  # else it was given back meanwhile
                    self._held.discard(turn)
                if mine:
                    turn.lose()

    def _next_due(self) -> _Held | None:
        """Wait until a lease must be renewed; None: closed."""
        with self._changed:
            while not self._closed:
                turn = min(self._held, key=lambda held: held.renew_at, default=None)
                rest_s = turn.renew_at - self._clock() if turn is not None else None
                if turn is not None and rest_s is not None and rest_s <= 0:
                    return turn
                self._changed.wait(rest_s)
            return None
