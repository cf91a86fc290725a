"""Two machines with a common cache, and the clock that all three go by."""

from __future__ import annotations

import pytest
from tests.answers.machines import Clock, Machine

from lazypix.cache.process import ProcessCache


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(clock: Clock) -> ProcessCache:
    return ProcessCache(clock=clock)


@pytest.fixture
def one(shared: ProcessCache, clock: Clock) -> Machine:
    return Machine(shared, clock)


@pytest.fixture
def two(shared: ProcessCache, clock: Clock) -> Machine:
    return Machine(shared, clock)
