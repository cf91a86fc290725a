"""Single flight: one worker for one piece of work in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

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


def result(flight: Flight[str], wait_s: float = WAIT_S) -> str:
    """Wait until the work has ended, and return what it delivered."""
    flight.landed.result(wait_s)
    return flight.delivered.result(0)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_many_who_ask_at_once_get_the_result_of_one(pool: ThreadPoolExecutor) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=10)
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


def test_an_error_is_everybodys_and_not_remembered(pool: ThreadPoolExecutor) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=10)
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


def test_different_keys_do_not_wait_for_each_other(pool: ThreadPoolExecutor) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=10)
    one, other = Work("one"), Work("other")
    slow = flights.join("one", one, pool)
    other.end.set()
    assert result(flights.join("other", other, pool)) == "other"
    assert not slow.delivered.done()
    one.end.set()
    assert result(slow) == "one"


def test_a_result_is_delivered_before_the_work_ends_and_the_key_stays_taken_until_then(
    pool: ThreadPoolExecutor,
) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=10)
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
    pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=10)

    def work(deliver: Callable[[str], None]) -> None:
        deliver("good")
        raise ValueError("afterwards")

    assert result(flights.join("key", work, pool)) == "good"
    assert "afterwards" in caplog.text


def test_work_that_delivers_nothing_is_an_error_for_who_waits(pool: ThreadPoolExecutor) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=10)
    with pytest.raises(RuntimeError, match="delivered nothing"):
        result(flights.join("key", lambda _: None, pool))


def test_a_full_queue_refuses_new_keys_but_lets_everybody_join(pool: ThreadPoolExecutor) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=2)
    works = [Work(), Work()]
    futures = [flights.join(str(number), work, pool) for number, work in enumerate(works)]
    with pytest.raises(Busy, match="2 images are being made"):
        flights.join("third", Work(), pool)
    assert flights.join("0", Work(), pool) is futures[0]
    for work in works:
        work.end.set()
    assert [result(future) for future in futures] == ["done", "done"]
    last = Work()
    last.end.set()
    assert result(flights.join("third", last, pool)) == "done"


def test_a_waiter_cannot_cancel_it_for_the_others(pool: ThreadPoolExecutor) -> None:
    flights: SingleFlight[str] = SingleFlight(max_keys=2)
    work = Work()
    future = flights.join("key", work, pool)
    assert not future.delivered.cancel()
    work.end.set()
    assert result(future) == "done"


def test_after_the_end_it_is_busy() -> None:
    executor = ThreadPoolExecutor(1)
    flights: SingleFlight[str] = SingleFlight(max_keys=2)
    executor.shutdown()
    with pytest.raises(Busy, match="Shutting down"):
        result(flights.join("key", Work(), executor))
    assert len(flights) == 0


def test_nobody_waits_for_ever_for_work_that_a_shutdown_cancelled() -> None:
    """`Library.close` shuts its executor down like this, while work is queued."""
    executor = ThreadPoolExecutor(1)
    flights: SingleFlight[str] = SingleFlight(max_keys=10)
    running, queued = Work(), Work()
    first = flights.join("running", running, executor)
    second = flights.join("queued", queued, executor)
    assert running.begun.wait(WAIT_S)
    executor.shutdown(wait=False, cancel_futures=True)
    running.end.set()
    assert result(first) == "done"
    with pytest.raises(Busy):
        result(second, 2)
    assert len(flights) == 0


def test_work_that_nobody_waits_for_any_more_is_dropped(pool: ThreadPoolExecutor) -> None:
    with ThreadPoolExecutor(1) as executor:
        flights: SingleFlight[str] = SingleFlight(max_keys=10)
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
