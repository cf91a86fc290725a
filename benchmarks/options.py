"""What the person who runs the benchmarks has asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much to measure, and against whom."""

    rounds: int = 5
    divisor: int = 1
    """Makes every number of requests smaller."""
    seconds: int = 5
    """How long one round of one hot server takes."""
    renders: int = 3000
    """How many renders the memory benchmark makes."""
    uploads: int = 60
    """How many uploads one round of one way of uploading makes."""
    thumbor: Path | None = None
    """Its program; None: leave its column out."""


QUICK = Options(rounds=3, divisor=5, seconds=2, renders=600, uploads=12)
FULL = Options()
