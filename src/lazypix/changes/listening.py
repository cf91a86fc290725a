"""Listening to a feed for as long as a process lives: connecting again, and what is done about a gap."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing

from lazypix.changes import Heard, Missed
from lazypix.changes.feed import ANSWER_S, ASK_EVERY_S, WAIT_S, Feed, FeedLost

log = logging.getLogger("lazypix")

_MOST_AT_ONCE = 1000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_STEADY_S = 5.0
_FIRST_ATTEMPT_S = 10.0
_END_S = 10.0


class Listening:
    """Hears changes on a feed, which is connected to again whenever it is lost; see `Changes`."""

    def __init__(
        self,
        connect: Callable[[], Feed],
        announce: Callable[[Collection[str]], None],
        *,
        hears_catalog: bool,
        at_end: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`connect` opens the feed (raises `FeedLost`); `announce` tells those who listen, and does not raise.

        `hears_catalog`: what the catalog announces by itself is heard on this feed. `at_end` is called by `close`.
        """
        self._connect = connect
        self._announce = announce
        self._hears_catalog = hears_catalog
        self._at_end = at_end
        self._clock = clock
        self._ending = threading.Event()
        self._attempted = threading.Event()
        self._thread: threading.Thread | None = None

    def announce(self, idents: Collection[str], *, in_catalog: bool = False) -> None:
        if idents and not (in_catalog and self._hears_catalog):
            self._announce(idents)

    def subscribe(self, heard: Heard, missed: Missed) -> None:
        assert self._thread is None, "subscribed already"
        # A daemon, so that a process that does not close can end all the same.
        thread = threading.Thread(target=self._run, args=(heard, missed), name="lazypix-changes", daemon=True)
        thread.start()
        self._thread = thread  # one that could not be started cannot be waited for, by `close`
        self._attempted.wait(_FIRST_ATTEMPT_S)

    def close(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_END_S)
        self._at_end()

    def _run(self, heard: Heard, missed: Missed) -> None:
        pauses, outage = Pauses(self._clock), _Outage()
        trusted = True  # nothing is remembered yet
        while not self._ending.is_set():
            try:
                with closing(self._connect()) as feed:
                    if not trusted:
                        missed()
                    outage.end()
                    pauses.connected()
                    self._attempted.set()
                    self._follow(feed, heard, missed)
            except Exception as error:  # noqa: BLE001  # whatever it is, listening goes on
                outage.begin(error)
            trusted = False
            self._attempted.set()
            self._ending.wait(pauses.next())

    def _follow(self, feed: Feed, heard: Heard, missed: Missed) -> None:
        """Hear until the end, or until the feed is lost."""
        asked_at: float | None = None
        answered_at = self._clock()
        while not self._ending.is_set():
            if asked_at is None and self._clock() >= answered_at + ASK_EVERY_S:
                feed.ask()
                asked_at = self._clock()
            news = feed.wait(WAIT_S)
            if news.incomplete or len(news.idents) > _MOST_AT_ONCE:
                missed()
            else:
                for ident in news.idents:
                    heard(ident)
            if asked_at is None:
                continue
            if news.answered:
                asked_at, answered_at = None, self._clock()
            elif self._clock() > asked_at + ANSWER_S:
                missed()  # nobody knows since when nothing came
                raise FeedLost("it does not answer")


class _Outage:
    """Logs that nothing can be heard, once, and that it can be again."""

    def __init__(self) -> None:
        self._is_on = False

    def begin(self, error: Exception) -> None:
        if not self._is_on:
            expected = isinstance(error, FeedLost)
            log.warning(
                "changes made by other processes are not heard now (%s); it is tried again",
                error if expected else type(error).__name__,
                exc_info=None if expected else error,
            )
        self._is_on = True

    def end(self) -> None:
        if self._is_on:
            log.warning("changes made by other processes are heard again")
        self._is_on = False


class Pauses:
    """How long to wait before the next attempt: longer each time, and not all processes at the same moment."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._attempts = 0
        self._since: float | None = None

    def connected(self) -> None:
        """Note that an attempt has succeeded."""
        self._since = self._clock()

    def next(self) -> float:
        """Return the seconds to wait now."""
        if self._since is not None and self._clock() > self._since + _STEADY_S:
            self._attempts = 0  # it was no connection that is lost as soon as it is made
        self._since = None
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._attempts, 10))
        self._attempts += 1
        return random.uniform(longest / 2, longest)  # noqa: S311  # jitter, not a secret
