"""Waiting for what happens elsewhere: in another thread or process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

WAIT_S = 60.0
"""Longer than anything takes that is not stuck."""


def until(true: Callable[[], bool], seconds: float = 20, otherwise: Callable[[], str] = lambda: "in vain") -> None:
    """Poll until `true`; fail after a bounded time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} seconds: {otherwise()}")
        time.sleep(0.02)


def wait(event: threading.Event) -> None:
    """Wait for an event that must come."""
    assert event.wait(WAIT_S)


def signal_and_wait(come: threading.Event, go: threading.Event) -> None:
    """Tell that we have come, and wait until we may go on."""
    come.set()
    wait(go)
