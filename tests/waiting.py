"""Waiting for what happens elsewhere: in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(true: Callable[[], bool], seconds: float = 20, otherwise: Callable[[], str] = lambda: "in vain") -> None:
    """Poll until `true`; fail after a bounded time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} seconds: {otherwise()}")
        time.sleep(0.02)
