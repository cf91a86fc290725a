"""What guards a cache: failures are misses, a breaker keeps them rare, the log tells of each outage once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.waiting import WAIT_S, signal_and_wait, wait

from lazypix.cache import CacheFailed
from lazypix.cache.breaker import LONGEST_PAUSE_S
from lazypix.cache.guarded import Guarded
from lazypix.cache.process import ProcessCache


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Frail(ProcessCache):
    """A cache that can be broken; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.asked = 0

    def break_down(self) -> None:
        self.error = CacheFailed("no answer")

    def get(self, key: str) -> bytes | None:
        self._ask()
        return super().get(key)

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._ask()
        super().set(key, value, ttl_s=ttl_s)

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        self._ask()
        return super().add(key, value, ttl_s=ttl_s)

    def delete(self, key: str) -> None:
        self._ask()
        super().delete(key)

    def _ask(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def frail() -> Frail:
    return Frail()


@pytest.fixture
def guarded(frail: Frail, clock: Clock) -> Guarded:
    return Guarded(frail, clock=clock, chance=lambda: 0.0)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[str, str]]]:
    """The level and text of what was logged; grows."""
    found: list[tuple[str, str]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.levelname, record.getMessage()))

    handler = Handler()
    log = logging.getLogger("lazypix")
    with caplog.at_level(logging.INFO, "lazypix"):
        log.addHandler(handler)
        yield found
        log.removeHandler(handler)


def test_every_failure_is_a_miss(guarded: Guarded, frail: Frail, clock: Clock) -> None:
    guarded.set("a", b"1", ttl_s=60)
    frail.break_down()
    for _ in range(2):  # the first time it fails, the second time it is not even asked
        assert guarded.get("a") is None
        clock.now += 100
        assert guarded.add("b", b"1", ttl_s=60) is False
        clock.now += 100
        guarded.set("a", b"2", ttl_s=60)
        clock.now += 100
        guarded.delete("a")
    frail.error = None
    clock.now += 100
    assert guarded.get("a") == b"1"
    assert guarded.add("a", b"1", ttl_s=60) is False


def test_a_cache_that_failed_is_left_alone_for_ever_longer(guarded: Guarded, frail: Frail, clock: Clock) -> None:
    frail.break_down()
    guarded.get("a")
    pauses = []
    for _ in range(7):
        begun, asked = clock.now, frail.asked
        while frail.asked == asked:
            clock.now += 0.125
            guarded.get("a")
        pauses.append(clock.now - begun)
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]


def test_pauses_differ_from_machine_to_machine(frail: Frail, clock: Clock) -> None:
    frail.break_down()
    guarded = Guarded(frail, clock=clock, chance=lambda: 1.0)
    guarded.get("a")
    clock.now += 0.24
    guarded.get("a")
    assert frail.asked == 1
    clock.now += 0.02
    guarded.get("a")
    assert frail.asked == 2


def test_what_answers_again_is_used_again(guarded: Guarded, frail: Frail, clock: Clock) -> None:
    frail.break_down()
    guarded.set("a", b"1", ttl_s=60)
    frail.error = None
    assert guarded.get("a") is None  # not asked
    clock.now += 0.5
    guarded.set("a", b"2", ttl_s=60)
    assert guarded.get("a") == b"2"


def test_the_pause_is_short_again_after_a_good_while_only(guarded: Guarded, frail: Frail, clock: Clock) -> None:
    def outage() -> float:
        """Break it, and return how long it is left alone."""
        frail.break_down()
        guarded.get("a")
        frail.error = None
        begun, asked = clock.now, frail.asked
        while frail.asked == asked:
            clock.now += 0.125
            guarded.get("a")
        return clock.now - begun

    assert [outage(), outage(), outage()] == [0.5, 1, 2]
    clock.now += LONGEST_PAUSE_S
    assert outage() == 0.5


def test_an_outage_is_logged_once_and_so_is_its_end(
    guarded: Guarded, frail: Frail, clock: Clock, lines: list[tuple[str, str]]
) -> None:
    frail.break_down()
    for _ in range(50):
        guarded.get("a")
        clock.now += 0.3
    (level, line) = lines[0]
    assert (level, len(lines)) == ("WARNING", 1)
    assert "ProcessCache()" in line
    assert "no answer" in line
    frail.error = None
    for _ in range(50):
        guarded.get("a")
        clock.now += 1
    assert lines[1:] == [("INFO", "ProcessCache() answers again")]


def test_only_one_thread_tries_after_a_pause(frail: Frail, clock: Clock) -> None:
    trying, go = threading.Event(), threading.Event()

    class Hanging(Frail):
        def get(self, key: str) -> bytes | None:
            if self.error is None:
                signal_and_wait(trying, go)
            return super().get(key)

    hanging = Hanging()
    hanging.break_down()
    guarded = Guarded(hanging, clock=clock)
    guarded.get("a")
    hanging.error = None
    clock.now += 1
    with ThreadPoolExecutor(1) as pool:
        prober = pool.submit(guarded.get, "a")
        wait(trying)
        assert [guarded.get("a") for _ in range(10)] == [None] * 10  # none of them hangs
        assert hanging.asked == 1
        go.set()
        assert prober.result(WAIT_S) is None
    guarded.set("a", b"1", ttl_s=60)
    assert guarded.get("a") == b"1"


def test_threads_that_fail_together_are_one_failure(clock: Clock, lines: list[tuple[str, str]]) -> None:
    together = threading.Barrier(8)

    class Hanging(Frail):
        def get(self, key: str) -> bytes | None:
            together.wait(WAIT_S)
            return super().get(key)

    hanging = Hanging()
    hanging.break_down()
    guarded = Guarded(hanging, clock=clock, chance=lambda: 0.0)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(guarded.get, "abcdefgh")) == [None] * 8
    assert [level for level, _ in lines] == ["WARNING"]
    hanging.error = None
    clock.now += 0.5  # not doubled eight times
    assert guarded.add("a", b"1", ttl_s=60) is True


def test_a_mistake_is_no_outage_and_blocks_nothing(guarded: Guarded, frail: Frail, clock: Clock) -> None:
    frail.error = AssertionError("a programmer's mistake")
    with pytest.raises(AssertionError):
        guarded.get("a")
    frail.error = None
    guarded.set("a", b"1", ttl_s=60)
    assert guarded.get("a") == b"1"

    frail.break_down()
    guarded.get("a")
    clock.now += 1
    frail.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        guarded.get("a")  # this was the one that tried
    frail.error = None
    assert guarded.get("a") == b"1"
