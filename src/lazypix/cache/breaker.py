"""Leaves a server that failed alone for a while, so that its outage costs little."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

log = logging.getLogger("lazypix")


class Breaker:
    """Asks a server that may fail. Safe to use from many threads.

    After a failure nothing is asked of it for half a second; then one caller tries. While that fails, the pauses
    double up to ten seconds, each shortened by up to a half at random, so that many machines do not come back at the
    same moment. So a dead or hanging server costs one timeout a pause, and not one a request; when it begins to hang,
    each thread that is asking it then waits for one. One warning tells of the outage, one line of its end.
    """

    def __init__(
        self,
        server: object,
        failure: type[Exception],
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`failure` is what `ask` is told of an outage by; `server` is shown in the log; `chance` is from 0 to 1."""
        self._server = server
        self._failure = failure
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._broken = False
        self._probing = False
        self._pause_s = FIRST_PAUSE_S
        self._again_at = 0.0
        self._recovered_at = float("-inf")

    def ask(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        Raises:
            the `failure`: `work` raised it, or nothing is asked now.
        """
        probe = False
        if self._broken:  # read without the lock: almost always it is not
            probe = self._may_probe()
            if not probe:
                raise self._failure("it is left alone after a failure")
        try:
            result = work()
        except self._failure as error:
            self._failed(error, probe=probe)
            raise
        except BaseException:
            if probe:
                self._probing = False  # it is not known how the server is: the next one shall try
            raise
        if probe:
            self._recovered()
        return result

    def _may_probe(self) -> bool:
        with self._lock:
            if self._probing or self._clock() < self._again_at:
                return False
            self._probing = True
            return True

    def _failed(self, error: Exception, *, probe: bool) -> None:
        """Begin an outage or prolong it; those who were asking when it began change nothing."""
        with self._lock:
            now = self._clock()
            begins = not self._broken
            if not begins and not probe:
                return
            # One that fails soon after it came back is not trusted like a new one.
            again = probe or now - self._recovered_at < LONGEST_PAUSE_S
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if again else FIRST_PAUSE_S
            self._again_at = now + self._pause_s * (1 - self._chance() / 2)
            self._broken = True
            if probe:
                self._probing = False
        if begins:
            log.warning("%r failed, going on without it: %s", self._server, error)

    def _recovered(self) -> None:
        with self._lock:
            self._recovered_at = self._clock()
            self._broken = self._probing = False
        log.info("%r answers again", self._server)
