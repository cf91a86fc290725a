"""One connection on which changes are heard, and what may be expected of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

CONNECT_S = 3.0
"""How long a connection may take to be made."""
ASK_EVERY_S = 1.0
"""A sign of life is asked for this long after the one before."""
ANSWER_S = 3.5
"""How long it is waited for. It comes behind all changes that came before, so that it bounds the lag too."""
WAIT_S = 0.2
"""How long is listened at a time, before anything else is looked at."""
NOTICED_S = 5.0
"""Within this time it is noticed that nothing can be heard: the sum of the three above, and a little."""


class FeedLost(Exception):
    """A feed cannot be connected to, or cannot be heard any more. The text holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What came in a while."""

    idents: Sequence[str] = ()
    answered: bool = False
    """The sign of life that was asked for has come."""
    incomplete: bool = False
    """There were changes besides that cannot be told any more."""


class Feed(Protocol):
    """A connection on which changes are heard from the moment it is made. Used by one thread.

    Every method but `close` raises `FeedLost`.
    """

    def ask(self) -> None:
        """Ask for a sign of life. Never waits for it."""
        ...

    def wait(self, timeout_s: float) -> News:
        """Return what has come; if nothing has, wait for at most so many seconds."""
        ...

    def close(self) -> None:
        """Give the connection back. A second time does nothing."""
        ...
