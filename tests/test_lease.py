"""One worker for one piece of work: in the process, and across processes that may be killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazypix import lease
from lazypix.errors import Busy
from lazypix.lease import Flight, FolderInUse, KeyLocks, SingleFlight

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


# --- in the process --------------------------------------------------------------------------------------------


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


# --- across processes ------------------------------------------------------------------------------------------

HOLDER = """
import sys
from lazypix.lease import Flight, FolderInUse, KeyLocks
folder, kind = sys.argv[1:]
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
if kind == "in-use":
    use = FolderInUse(folder)
    use.join(when_alone=lambda: print("alone", flush=True))
    wait()
else:
    with KeyLocks(folder).hold(kind, patience_s=0) as got:
        print(got, flush=True)
        wait()
"""


@contextmanager
def _another_process(folder: Path, kind: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a process that holds a lock until its input ends; give it and what it said before."""
    command = [sys.executable, "-c", HOLDER, str(folder), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = list(iter(process.stdout.readline, "ready\n"))
        yield process, said
        if process.poll() is None:
            process.communicate("\n", timeout=WAIT_S)


def _holds(locks: KeyLocks, key: str, patience_s: float = 0) -> bool:
    with locks.hold(key, patience_s=patience_s) as got:
        return got


def test_a_lock_is_held_by_one_process(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    assert _holds(locks, "key")
    with _another_process(tmp_path, "key") as (_, said):
        assert said == ["True\n"]
        assert not _holds(locks, "key")
        assert not _holds(locks, "key", patience_s=0.05)
        assert _holds(locks, "another key")
    assert _holds(locks, "key")


def test_a_lock_is_released_when_its_holder_is_killed(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with _another_process(tmp_path, "key") as (process, _):
        assert not _holds(locks, "key")
        process.kill()
        assert _holds(locks, "key", patience_s=WAIT_S)
        process.wait(WAIT_S)


def test_a_waiter_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with locks.hold("key", patience_s=0) as got:
            assert got
            waiting = pool.submit(_holds, locks, "key", WAIT_S)
        assert waiting.result(WAIT_S)


def test_threads_exclude_each_other_too(tmp_path: Path) -> None:
    locks, barrier = KeyLocks(tmp_path), threading.Barrier(4)
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        barrier.wait(WAIT_S)
        for _ in range(20):
            with locks.hold("key", patience_s=WAIT_S) as got:
                assert got
                inside += 1
                most = max(most, inside)
                time.sleep(0)  # let another thread in, if it can get in
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        for ended in [pool.submit(work) for _ in range(4)]:
            ended.result(WAIT_S)
    assert most == 1


def test_no_file_is_left_for_each_key(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    if sys.platform == "linux":
        for number in range(100):
            assert _holds(locks, f"key {number}")
        assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]


def test_where_bytes_cannot_be_locked_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(lease, "_SET_BYTE_LOCK", 0)
    locks = KeyLocks(tmp_path)
    with locks.hold("key", patience_s=0) as got:
        assert got
        assert not _holds(locks, "key")
    assert _holds(locks, "key")
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_place_for_locks_the_work_goes_on(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path / "locks")
    (tmp_path / "locks").rmdir()
    with locks.hold("cat", patience_s=1) as held:
        assert not held


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with pytest.raises(ValueError, match="no"), locks.hold("key", patience_s=0):
        raise ValueError("no")
    assert _holds(locks, "key")


def test_the_first_user_of_a_folder_is_alone_the_second_is_not(tmp_path: Path) -> None:
    path, alone = tmp_path / "in-use", []
    first, second = FolderInUse(path), FolderInUse(path)
    first.join(when_alone=lambda: alone.append("first"))
    second.join(when_alone=lambda: alone.append("second"))
    assert alone == ["first"]
    first.leave()
    third = FolderInUse(path)
    third.join(when_alone=lambda: alone.append("third"))
    second.leave()
    third.leave()
    fourth = FolderInUse(path)
    fourth.join(when_alone=lambda: alone.append("fourth"))
    fourth.leave()
    assert alone == ["first", "fourth"]


def test_a_user_in_another_process_counts_until_it_dies(tmp_path: Path) -> None:
    path, alone = tmp_path / "in-use", []
    with _another_process(path, "in-use") as (process, said):
        assert said == ["alone\n"]
        one = FolderInUse(path)
        one.join(when_alone=lambda: alone.append("with the other"))
        one.leave()
        process.kill()
        process.wait(WAIT_S)
        two = FolderInUse(path)
        two.join(when_alone=lambda: alone.append("after its death"))
        two.leave()
    assert alone == ["after its death"]


def test_who_comes_while_the_folder_is_being_cleaned_waits(tmp_path: Path) -> None:
    path, order = tmp_path / "in-use", []
    first, second = FolderInUse(path), FolderInUse(path)
    cleaning, clean = threading.Event(), threading.Event()

    def clean_up() -> None:
        cleaning.set()
        assert clean.wait(WAIT_S)
        order.append("clean")

    def come_second() -> None:
        second.join(when_alone=lambda: order.append("second alone"))
        order.append("second in")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.join, clean_up)
        assert cleaning.wait(WAIT_S)
        two = pool.submit(come_second)
        assert not two.done()
        clean.set()
        one.result(WAIT_S)
        two.result(WAIT_S)
    first.leave()
    second.leave()
    assert order == ["clean", "second in"]
