"""What is let in before the renderers, and who goes next: plain accounting, without threads.

`Shares` bounds what waits, by number and by estimated seconds; `Turns` decides who gets a free slot.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lazypix.cost import HEAVY_S
from lazypix.errors import Busy

Kind = Literal["small", "heavy", "background", "verifying"]

_SHARES: dict[Kind, float] = {"small": 1.0, "heavy": 0.75, "background": 0.5, "verifying": 1.0}
_LONGEST_RETRY_S = 20.0
_LONGEST_SPREAD_S = 2.0
_ROUNDING_S = 1e-9


@dataclass(slots=True, kw_only=True, eq=False)
class Piece:
    """One piece of work for a renderer."""

    seconds: float
    """How long a renderer will take for it; estimated."""
    background: bool = False
    """Nobody waits for it: it goes behind everything else."""
    verifying: bool = False
    """It is an upload's; their number is bounded where they are received."""
    began: float | None = None
    """When its renderer began (`time.perf_counter`)."""

    @property
    def kind(self) -> Kind:
        """In which of the lines it waits."""
        if self.background:
            return "background"
        if self.verifying:
            return "verifying"
        return "heavy" if self.seconds > HEAVY_S else "small"

    @property
    def can_wait(self) -> bool:
        """Whether others should find a free slot beside it."""
        return self.background or self.seconds > HEAVY_S


class Turns:
    """Slots, and who waits for one. Not thread-safe.

    Small work, heavy work and uploads take turns, so that each gets an equal share of the seconds for as long as it
    has work (start-time fair queueing); work in the background goes when none of them can. Heavy work has at most
    `each` slots, work in the background too, and both `together`: the others are for what is done soon.
    """

    def __init__(self, slots: int, *, each: int, together: int) -> None:
        self._slots = slots
        self._each = each
        self._together = together
        self._waiting: dict[Piece, Callable[[], None]] = {}
        self._taken: dict[Piece, tuple[bool, bool]] = {}
        self._tags: dict[Kind, float] = {}
        self._clock = 0.0

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return len(self._taken)

    @property
    def waiting(self) -> list[Piece]:
        """Who waits, the longest first."""
        return list(self._waiting)

    def wait(self, piece: Piece, go: Callable[[], None]) -> None:
        """Have a piece wait for a slot; `go` is what `take` returns then."""
        self._waiting[piece] = go

    def drop(self, piece: Piece) -> bool:
        """Let a piece wait no longer; False when it did not wait (any more)."""
        return self._waiting.pop(piece, None) is not None

    def take(self) -> Callable[[], None] | None:
        """Give a free slot to whose turn it is; None when there is nobody, or no slot for those who wait."""
        piece = self._next()
        if piece is None:
            return None
        start = self._start(piece.kind)
        if piece.kind != "background":
            self._clock = start
        self._tags[piece.kind] = start + piece.seconds
        self._taken[piece] = (piece.can_wait, piece.background)
        return self._waiting.pop(piece)

    def free(self, piece: Piece) -> None:
        """Give a slot back."""
        del self._taken[piece]

    def _next(self) -> Piece | None:
        if len(self._taken) >= self._slots:
            return None
        first: dict[Kind, Piece] = {}
        for piece in self._waiting:
            if piece.kind not in first and self._may_go(piece):
                first[piece.kind] = piece
        background = first.pop("background", None)
        return first[min(first, key=self._start)] if first else background

    def _may_go(self, piece: Piece) -> bool:
        if not piece.can_wait:
            return True
        like_it = sum(can_wait and background == piece.background for can_wait, background in self._taken.values())
        return like_it < self._each and sum(can_wait for can_wait, _ in self._taken.values()) < self._together

    def _start(self, kind: Kind) -> float:
        return max(self._tags.get(kind, 0.0), self._clock)


class Shares:
    """What may wait, by number and by seconds. Not thread-safe.

    Heavy work has three quarters of both at most, and work in the background is taken only while half of both is
    free. One piece counts for its share at most: when nothing else of its kind is there, the largest is taken.
    Uploads are counted, and never refused here.
    """

    def __init__(self, *, places: int, seconds: float, renderers: int) -> None:
        self._places = places
        self._seconds = seconds
        self._renderers = renderers
        self._inside: dict[Piece, tuple[Kind, float]] = {}

    def admit(self, piece: Piece) -> None:
        """Let a piece in.

        Raises:
            Busy: there is no room; says of what, and when to ask again.
        """
        kind, share = piece.kind, _SHARES[piece.kind]
        counted = min(piece.seconds, share * self._seconds)
        if kind == "heavy":
            self._check(share, counted, "heavy ", "heavy")
        if kind != "verifying":
            self._check(share if kind == "background" else 1.0, counted, "")
        self.enter(piece)

    def enter(self, piece: Piece) -> None:
        """Count a piece that was let in once before; it is never refused."""
        self._inside[piece] = (piece.kind, min(piece.seconds, _SHARES[piece.kind] * self._seconds))

    def leave(self, piece: Piece) -> None:
        """Give the room of a piece back; a second time does nothing."""
        self._inside.pop(piece, None)

    def count(self, *kinds: Kind) -> int:
        """Return how many pieces are inside; of all kinds but uploads, unless some are named."""
        return sum(kind in kinds if kinds else kind != "verifying" for kind, _ in self._inside.values())

    def seconds(self, *kinds: Kind) -> float:
        """Return how long a renderer alone would take for them; as `count`."""
        return sum(s for kind, s in self._inside.values() if (kind in kinds if kinds else kind != "verifying"))

    def retry_after_s(self, *, heavy: bool = False, dice: random.Random | None = None) -> int:
        """Return after how many seconds to ask again: when most of what is ahead is done, spread a little."""
        if heavy:
            ahead_s = self.seconds("heavy") / max(1, self._renderers - 1)
        else:
            ahead_s = (self.seconds() + self.seconds("verifying")) / self._renderers
        roll = (dice or random).uniform  # not all who are refused now shall be back in the same second
        spread_s = min(ahead_s, _LONGEST_RETRY_S) * roll(1.0, 1.5) + roll(0.0, _LONGEST_SPREAD_S)
        return max(1, math.ceil(spread_s))

    def _check(self, share: float, counted: float, what: str, *kinds: Kind) -> None:
        places = max(1, math.floor(share * self._places))
        if self.count(*kinds) >= places:
            raise self._busy(f"{places} {what}images are being made, as many as are let in", heavy=bool(kinds))
        if self.seconds(*kinds) + counted > share * self._seconds + _ROUNDING_S:
            each_s = share * self._seconds / self._renderers
            raise self._busy(f"The renderers have {what}work for {each_s:.3g} seconds", heavy=bool(kinds))

    def _busy(self, text: str, *, heavy: bool) -> Busy:
        after_s = self.retry_after_s(heavy=heavy)
        return Busy(f"{text}; ask again in {after_s} seconds", retry_after_s=after_s)
