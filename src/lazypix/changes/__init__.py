"""How every process of every machine hears that what it remembers of an image is not true any more.

`Changes` is the contract; every implementation passes `tests/contracts`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

Heard = Callable[[str], None]
"""Called with the ident of an image: what is remembered of it is not true any more."""
Missed = Callable[[], None]
"""Called when changes may have been missed: nothing that is remembered is to be believed."""


class Changes(Protocol):
    """Tells of changes, and hears of them. Safe to use from many threads.

    **Guarantee.** While it listens, a change that is announced anywhere is heard within milliseconds (a SQLite file
    is looked at every 50). A connection that is closed is noticed at once, and one that hangs within `feed.NOTICED_S`
    seconds; then `missed` is called, because nobody knows since when. When there is a connection again `missed` is
    called once: whatever was announced in between is as good as heard. The same change may be heard several times.

    For what is remembered while there is no connection only its time to live is a bound.
    """

    def announce(self, idents: Collection[str], *, in_catalog: bool = False) -> None:
        """Tell all who listen that what they remember of these images is not true any more.

        To be called after the change is committed. With `in_catalog` the catalog has announced it in the change's own
        transaction; who listens to the catalog needs no more. A failure is logged, and fails nobody.
        """
        ...

    def subscribe(self, heard: Heard, missed: Missed) -> None:
        """Listen from now on, in a thread of its own; to be called once, before anything is remembered.

        Returns when it listens, or when the first attempt to has failed; it is tried again until `close`. Both
        functions are called from that thread, must be quick, and must not raise.
        """
        ...

    def close(self) -> None:
        """Listen no more; no thread is left then. A second time does nothing."""
        ...


class NoChanges:
    """Hears of nothing, and tells nobody but whom the catalog tells: times to live alone bound what is remembered."""

    def announce(self, idents: Collection[str], *, in_catalog: bool = False) -> None:
        pass

    def subscribe(self, heard: Heard, missed: Missed) -> None:
        pass

    def close(self) -> None:
        pass
