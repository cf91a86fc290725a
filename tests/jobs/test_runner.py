"""The runner: jobs are begun at once, kept while they run, tried again, and given back at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.waiting import until, wait

from lazypix.catalog import Catalog
from lazypix.catalog.jobs import Job, JobRows, NewJob
from lazypix.errors import BadRequest, StoreFailed
from lazypix.jobs import Interrupted, Kind
from lazypix.jobs.carrier import Carrier
from lazypix.jobs.rests import Rests
from lazypix.jobs.runner import JobRunner

FOR_EVER_S = 1e6


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[JobRows]:
    with closing(Catalog.sqlite(tmp_path / "catalog.sqlite")) as catalog:
        yield catalog.jobs


def kind(carry_out: Callable[[Job], None], name: str = "work", **options: object) -> Kind:
    quick = {"first_wait_s": 0.001, "longest_wait_s": 0.01}
    return Kind(name=name, carry_out=carry_out, **quick | options)  # type: ignore[arg-type]


def test_what_this_process_adds_is_begun_at_once(rows: JobRows) -> None:
    done: list[object] = []
    with JobRunner(rows, [kind(lambda job: done.append(job.payload["n"]))], poll_s=FOR_EVER_S):
        rows.add([NewJob(kind="work", payload={"n": n}) for n in range(20)])
        until(lambda: rows.count() == {})
    assert sorted(done, key=str) == sorted(range(20), key=str)


def test_what_others_add_is_found_soon(rows: JobRows, tmp_path: Path) -> None:
    with (
        JobRunner(rows, [kind(lambda _: None)], poll_s=0.05),
        closing(Catalog.sqlite(tmp_path / "catalog.sqlite")) as other,
    ):
        other.jobs.add([NewJob(kind="work")])
        until(lambda: rows.count() == {})


def test_no_more_run_at_once_than_there_are_workers_of_the_lane(rows: JobRows) -> None:
    going = threading.Semaphore(0)
    go = threading.Event()

    def work(_: Job) -> None:
        going.release()
        wait(go)

    kinds = [kind(work), kind(lambda _: None, "quick", lane="other")]
    with JobRunner(rows, kinds, workers=2, poll_s=0.02):
        rows.add([NewJob(kind="work")] * 5 + [NewJob(kind="quick")])
        assert going.acquire(timeout=20)
        assert going.acquire(timeout=20)
        until(lambda: "quick" not in rows.count())
        assert rows.count()["work"] == {"running": 2, "waiting": 3}
        go.set()
        until(lambda: rows.count() == {})


_ENDS_WITHOUT_CLOSING = """
import threading, time
from concurrent.futures import thread
from lazypix.catalog import Catalog
from lazypix.catalog.jobs import NewJob
from lazypix.jobs import Kind
from lazypix.jobs.runner import JobRunner

rows = Catalog.sqlite("catalog.sqlite").jobs
rows.add([NewJob(kind="work")])
take, give_back, refused = rows.take, rows.give_back, threading.Event()

def take_at_the_end(kinds, **options):
    while not thread._shutdown:
        time.sleep(0.001)
    return take(kinds, **options)

def tell(job, **options):
    given = give_back(job, **options)
    refused.set()
    return given

rows.take, rows.give_back = take_at_the_end, tell
JobRunner(rows, [Kind(name="work", carry_out=print)])
threading.Thread(target=refused.wait, args=(20,)).start()  # keeps the process that long
"""


def test_a_process_that_ends_without_closing_it_gives_a_job_back_and_says_nothing(tmp_path: Path) -> None:
    with closing(Catalog.sqlite(tmp_path / "catalog.sqlite")) as catalog:
        done = subprocess.run(
            [sys.executable, "-c", _ENDS_WITHOUT_CLOSING], cwd=tmp_path, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
        assert catalog.jobs.count() == {"work": {"waiting": 1}}


def test_a_failure_is_tried_again_and_given_up_at_last(rows: JobRows) -> None:
    def fail(_: Job) -> None:
        raise RuntimeError("no \0 luck")

    with JobRunner(rows, [kind(fail, attempts=3)], poll_s=0.02):
        rows.add([NewJob(kind="work")])
        until(lambda: rows.count() == {"work": {"dead": 1}})
    (dead,) = rows.find()
    assert (dead.attempts, dead.error) == (3, "RuntimeError: no \ufffd luck")


def test_what_is_the_jobs_own_fault_is_not_tried_again(rows: JobRows) -> None:
    def refuse(_: Job) -> None:
        raise BadRequest("This will never do")

    with JobRunner(rows, [kind(refuse)], poll_s=0.02):
        rows.add([NewJob(kind="work")])
        until(lambda: rows.count() == {"work": {"dead": 1}})
    assert rows.find()[0].attempts == 1


def test_a_job_that_takes_longer_than_its_lease_is_kept(rows: JobRows, tmp_path: Path) -> None:
    begun, renewed = threading.Event(), threading.Event()

    def work(job: Job) -> None:
        begun.set()
        wait(renewed)

    with JobRunner(rows, [kind(work)], lease_s=0.5, poll_s=FOR_EVER_S):
        rows.add([NewJob(kind="work")])
        wait(begun)
        first = rows.find()[0].due
        until(lambda: (rows.find()[0].due - first).total_seconds() > 0.5)
        assert rows.find()[0].attempts == 1
        renewed.set()
        until(lambda: rows.count() == {})


def test_a_job_that_loses_all_its_carriers_is_given_up(rows: JobRows) -> None:
    rows.add([NewJob(kind="work")])
    for _ in range(3):
        assert rows.take(["work"], lease_s=0) is not None
    begun: list[Job] = []
    with JobRunner(rows, [kind(begun.append, attempts=3)], poll_s=0.02):
        until(lambda: rows.count() == {"work": {"dead": 1}})
    assert begun == []


def test_a_runner_that_closes_gives_back_what_is_not_finished(rows: JobRows) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work(_: Job) -> None:
        begun.set()
        wait(go)
        ended.set()

    runner = JobRunner(rows, [kind(work)], poll_s=FOR_EVER_S)
    rows.add([NewJob(kind="work")])
    wait(begun)
    runner.close(grace_s=0)
    (job,) = rows.find()
    assert (job.state, job.attempts) == ("waiting", 0)
    go.set()
    wait(ended)
    with JobRunner(rows, [kind(lambda _: None)]):
        until(lambda: rows.count() == {})


def test_what_takes_long_is_interrupted_and_given_back(rows: JobRows) -> None:
    begun, stopping = threading.Event(), threading.Event()

    def work(_: Job) -> None:
        begun.set()
        wait(stopping)
        raise Interrupted

    with JobRunner(rows, [kind(work)], stopping=stopping):
        rows.add([NewJob(kind="work")])
        wait(begun)
    (job,) = rows.find()
    assert (job.state, job.attempts) == ("waiting", 0)


def test_what_is_done_again_and_again_is_scheduled_once(rows: JobRows) -> None:
    done = threading.Semaphore(0)

    def work(_: Job) -> None:
        done.release()
        raise StoreFailed("not always")

    kinds = [kind(work, every_s=0.01, attempts=1)]
    with JobRunner(rows, kinds, poll_s=0.02), JobRunner(rows, kinds, poll_s=0.02):
        for _ in range(5):
            assert done.acquire(timeout=20)
    assert sum(rows.count()["work"].values()) == 1
    assert "dead" not in rows.count()["work"]


def test_what_is_done_again_and_again_comes_back_when_it_was_dropped(
    rows: JobRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Carrier(rows, [kind(lambda _: None, every_s=60)])) as carrier:
        carrier.schedule()
        assert rows.drop(kind="work") == 1
        carrier.schedule()
        assert rows.find() == []  # not looked for each time
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 601)
        carrier.schedule()
        assert [job.kind for job in rows.find()] == ["work"]


def test_finish_returns_when_nothing_waits(rows: JobRows) -> None:
    done: list[Job] = []
    rows.add([NewJob(kind="work")] * 30 + [NewJob(kind="work", due_in_s=3600)])
    with JobRunner(rows, [kind(done.append)], poll_s=FOR_EVER_S) as runner:
        runner.finish()
        assert rows.count() == {"work": {"later": 1}}
    assert len(done) == 30


def test_a_kind_whose_destination_is_away_rests_and_others_go_on(rows: JobRows) -> None:
    tried = threading.Semaphore(0)

    def fail(_: Job) -> None:
        tried.release()
        raise StoreFailed("away")

    done: list[Job] = []
    rows.add([NewJob(kind="away") for _ in range(200)])
    kinds = [kind(fail, "away", first_wait_s=0.0), kind(done.append, "quick", first_wait_s=0.0)]
    with JobRunner(rows, kinds, workers=1, poll_s=FOR_EVER_S):
        for _ in range(3):
            assert tried.acquire(timeout=20)
        rows.add([NewJob(kind="quick") for _ in range(50)])
        until(lambda: len(done) == 50)
    tries = sum(job.attempts for job in rows.find(limit=1000))
    assert 3 <= tries <= 10


def test_a_rest_grows_and_ends_with_an_answer() -> None:
    now = 0.0
    rests = Rests(lambda: now)
    for _ in range(2):
        rests.failed("a")
    assert not rests.is_resting("a")
    rests.failed("a")
    assert rests.is_resting("a")
    assert not rests.is_resting("b")
    now = 1.0
    assert not rests.is_resting("a")
    rests.failed("a")
    now = 2.9
    assert rests.is_resting("a")
    for _ in range(50):
        rests.failed("a")
    now += 60.0
    assert not rests.is_resting("a")
    rests.failed("a")
    rests.answered("a")
    assert not rests.is_resting("a")


def test_waits_grow_are_bounded_and_differ() -> None:
    work = Kind(name="work", carry_out=lambda _: None, first_wait_s=2, longest_wait_s=100)
    for attempts, most in ((1, 2.0), (2, 4.0), (5, 32.0), (7, 100.0), (10_000, 100.0)):
        waits = [work.wait_s(attempts) for _ in range(200)]
        assert 0 <= min(waits) < most / 4
        assert most * 0.75 < max(waits) <= most
