"""Single flight: one worker for one piece of work in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from lazypix.errors import Busy
from lazypix.lease.flight import Flight, SingleFlight

WAIT_S = 30.0


class Work:
    """Work that ends when it is told to, and counts how often it was done."""

    def __init__(self, result: str | Exception = "done") -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.times = 0
        self._result = result

    def __call__(self, deliver: Callable[[str], None]) -> None:
        self.times += 1
        self.begun.set()
        assert self.end.wait(WAIT_S)
        if isinstance(self._result, Exception):
            raise self._result
        deliver(self._result)


class Pool(ThreadPoolExecutor):
    """A queue that is a plain pool of threads; refuses what comes while it is `full`, and counts who hurried it."""

    full = False
    hurried = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        if self.full:
            raise Busy("full")
        return super().submit(fn, *args, **options)

    def hurry(self) -> None:
        self.hurried += 1


def result(flight: Flight[str], wait_s: float = WAIT_S) -> str:
    """Wait until the work has ended, and return what it delivered."""
    flight.landed.result(wait_s)
    return flight.delivered.result(0)


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(4) as executor:
        yield executor


def test_many_who_ask_at_once_get_the_result_of_one(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    work, barrier = Work(), threading.Barrier(50)

    def ask() -> Flight[str]:
        barrier.wait(WAIT_S)
        return flights.join("key", work, pool)

    with ThreadPoolExecutor(50) as askers:
        futures = [asked.result(WAIT_S) for asked in [askers.submit(ask) for _ in range(50)]]
    work.end.set()
    assert {result(future) for future in futures} == {"done"}
    assert work.times == 1
    assert len(flights) == 0


def test_an_error_is_everybodys_and_not_remembered(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    failing = Work(ValueError("no"))
    futures = [flights.join("key", failing, pool) for _ in range(3)]
    failing.end.set()
    for future in futures:
        with pytest.raises(ValueError, match="no"):
            result(future)
    good = Work()
    good.end.set()
    assert result(flights.join("key", good, pool)) == "done"
    assert (failing.times, good.times) == (1, 1)


def test_different_keys_do_not_wait_for_each_other(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    one, other = Work("one"), Work("other")
    slow = flights.join("one", one, pool)
    other.end.set()
    assert result(flights.join("other", other, pool)) == "other"
    assert not slow.delivered.done()
    one.end.set()
    assert result(slow) == "one"


def test_a_result_is_delivered_before_the_work_ends_and_the_key_stays_taken_until_then(
    pool: Pool,
) -> None:
    flights: SingleFlight[str] = SingleFlight()
    end = threading.Event()

    def work(deliver: Callable[[str], None]) -> None:
        deliver("early")
        assert end.wait(WAIT_S)

    flight = flights.join("key", work, pool)
    assert flight.delivered.result(WAIT_S) == "early"
    assert not flight.landed.done()
    assert flights.join("key", Work(), pool) is flight
    end.set()
    flight.landed.result(WAIT_S)
    assert len(flights) == 0


def test_a_failure_after_the_delivery_is_logged_and_hurts_nobody(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    flights: SingleFlight[str] = SingleFlight()

    def work(deliver: Callable[[str], None]) -> None:
        deliver("good")
        raise ValueError("afterwards")

    assert result(flights.join("key", work, pool)) == "good"
    assert "afterwards" in caplog.text


def test_work_that_delivers_nothing_is_an_error_for_who_waits(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    with pytest.raises(RuntimeError, match="delivered nothing"):
        result(flights.join("key", lambda _: None, pool))


def test_a_full_queue_refuses_new_keys_but_lets_everybody_join(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    future = flights.join("0", work, pool)
    pool.full = True
    with pytest.raises(Busy, match="full"):
        flights.join("third", Work(), pool)
    assert len(flights) == 1, "what was refused left nothing"
    assert flights.join("0", Work(), pool) is future
    work.end.set()
    assert result(future) == "done"
    pool.full = False
    last = Work()
    last.end.set()
    assert result(flights.join("third", last, pool)) == "done"


def test_one_who_joins_can_hurry_the_queue_that_the_work_is_in(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    flights.join("key", work, pool)
    with Pool(1) as other:
        flight = flights.join("key", Work(), other)
        flight.hurry()
        assert (pool.hurried, other.hurried) == (1, 0)
    work.end.set()
    assert result(flight) == "done"


def test_a_waiter_cannot_cancel_it_for_the_others(pool: Pool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    future = flights.join("key", work, pool)
    assert not future.delivered.cancel()
    work.end.set()
    assert result(future) == "done"


def test_after_the_end_it_is_busy() -> None:
    executor = Pool(1)
    flights: SingleFlight[str] = SingleFlight()
    executor.shutdown()
    with pytest.raises(Busy, match="Shutting down"):
        result(flights.join("key", Work(), executor))
    assert len(flights) == 0


def test_nobody_waits_for_ever_for_work_that_a_shutdown_cancelled() -> None:
    """`Library.close` shuts its executor down like this, while work is queued."""
    executor = Pool(1)
    flights: SingleFlight[str] = SingleFlight()
    running, queued = Work(), Work()
    first = flights.join("running", running, executor)
    second = flights.join("queued", queued, executor)
    assert running.begun.wait(WAIT_S)
    executor.shutdown(wait=False, cancel_futures=True)
    running.end.set()
    assert result(first) == "done"
    with pytest.raises(Busy):
        result(second)
    assert len(flights) == 0


def test_work_that_nobody_waits_for_any_more_is_dropped(pool: Pool) -> None:
    with Pool(1) as executor:
        flights: SingleFlight[str] = SingleFlight()
        running, queued = Work(), Work()
        first = flights.join("running", running, executor)
        second, third = flights.join("queued", queued, executor), flights.join("queued", queued, executor)
        assert third is second
        assert running.begun.wait(WAIT_S)
        second.leave()
        assert len(flights) == 2, "another one waits"
        second.leave()
        assert len(flights) == 1
        with pytest.raises(Busy):
            result(second)
        first.leave()  # what has begun goes on
        running.end.set()
        assert result(first) == "done"
        first.leave()
        assert (running.times, queued.times) == (1, 0)
        again = Work()
        again.end.set()
        assert result(flights.join("queued", again, executor)) == "done"
