"""The table of jobs, on each of the databases: every job to one taker, in turn, and never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, text

from lazypix.catalog import Catalog, Image
from lazypix.catalog.jobs import IDLE, SOON, Job, JobRows, NewJob
from lazypix.errors import UnknownImage
from lazypix.plan import Probe

LEASE_S = 60.0
IMAGE = Image(
    ident="one",
    sha256="00" * 32,
    size=5,
    probe=Probe(format="jpg", width=4, height=3, frames=1, orientation=1, alpha=False),
    created=datetime.now(UTC),
)


@pytest.fixture
def rows(catalog: Catalog) -> JobRows:
    return catalog.jobs


def take(rows: JobRows, *kinds: str, lease_s: float = LEASE_S) -> Job:
    job = rows.take(kinds or ("work",), lease_s=lease_s)
    assert job is not None
    return job


def states(rows: JobRows) -> list[str]:
    return [job.state for job in rows.find()]


# --- adding and taking ---------------------------------------------------------------------------------------------


def test_a_job_is_taken_whole_by_one_and_gone_when_it_is_done(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", ident="a", payload={"x": [1, "ü\0"]}, priority=SOON, caller="me")])
    job = take(rows)
    assert (job.kind, job.ident, job.payload, job.priority, job.caller) == (
        "work",
        "a",
        {"x": [1, "ü\0"]},
        SOON,
        "me",
    )
    assert (job.state, job.attempts) == ("running", 1)
    assert rows.take(["work"], lease_s=LEASE_S) is None
    assert rows.done(job)
    assert rows.find() == []
    assert not rows.done(job)


def test_jobs_that_are_added_together_are_taken_in_the_order_given(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", payload={"n": n}, caller=str(n)) for n in range(20)])
    assert [job.payload["n"] for job in rows.find()] == list(range(20))
    assert [take(rows).payload["n"] for _ in range(20)] == list(range(20))


def test_only_jobs_of_the_kinds_asked_for_are_taken(rows: JobRows) -> None:
    rows.add([NewJob(kind="work"), NewJob(kind="work:b")])
    assert rows.take(["other", "wor", "work%"], lease_s=LEASE_S) is None
    assert take(rows, "work:b", "other").kind == "work:b"


def test_jobs_are_added_with_what_they_belong_to_or_not_at_all(catalog: Catalog) -> None:
    claim = catalog.claim(IMAGE)
    with pytest.raises(UnknownImage):
        catalog.publish("one", "another's", jobs=[NewJob(kind="work")])
    assert catalog.jobs.find() == []
    catalog.publish("one", claim, jobs=[NewJob(kind="work", ident="one")])
    catalog.begin_delete("one", trash_s=50, jobs=[NewJob(kind="hide", ident="one")])
    with pytest.raises(UnknownImage):
        catalog.begin_delete("two", jobs=[NewJob(kind="hide", ident="two")])
    catalog.undelete("one", jobs=[NewJob(kind="show", ident="one")])
    catalog.begin_delete("one", trash_s=50)
    assert not catalog.empty_trash("one", jobs=[NewJob(kind="remove", ident="one")])
    assert [job.kind for job in catalog.jobs.find(ident="one")] == ["work", "hide", "show"]
    assert catalog.empty_trash("one", before_its_time=True, jobs=[NewJob(kind="remove", ident="one")])
    assert catalog.jobs.count() == {kind: {"waiting": 1} for kind in ("hide", "remove", "show", "work")}


def test_what_was_committed_is_announced_and_nothing_else(catalog: Catalog) -> None:
    told: list[str] = []
    catalog.jobs.announce = told.extend
    with pytest.raises(UnknownImage):
        catalog.publish("none", jobs=[NewJob(kind="work")])
    assert told == []
    catalog.jobs.add([NewJob(kind="work"), NewJob(kind="work", due_in_s=100)])
    assert told == [job.id for job in catalog.jobs.find(state="waiting")]


def test_every_job_goes_to_one_of_many_takers(url: str) -> None:
    catalogs = [Catalog.open(url) for _ in range(3)]
    catalogs[0].jobs.add([NewJob(kind="work", payload={"n": n}) for n in range(60)])
    start = threading.Barrier(9)

    def work(catalog: Catalog) -> list[int]:
        start.wait()
        mine = []
        while (job := catalog.jobs.take(["work"], lease_s=LEASE_S)) is not None:
            mine.append(job.payload["n"])
            catalog.jobs.done(job)
        return mine

    with ThreadPoolExecutor(9) as pool:
        taken = list(pool.map(work, catalogs * 3))
    assert sorted(number for mine in taken for number in mine) == list(range(60))
    assert catalogs[0].jobs.count() == {}
    for catalog in catalogs:
        catalog.close()


def test_one_of_several_that_would_do_the_same_waits(rows: JobRows) -> None:
    same = NewJob(kind="work", unique_key="same")
    rows.add([same, same])
    rows.add([same, NewJob(kind="work", unique_key="other", due_in_s=60)])
    rows.add([NewJob(kind="work", unique_key="other")])
    assert rows.count() == {"work": {"waiting": 1, "later": 1}}


def test_what_comes_while_the_same_runs_is_done_once_more(rows: JobRows) -> None:
    """The one that runs may have looked already."""
    same = NewJob(kind="work", unique_key="same")
    rows.add([same])
    first = take(rows)
    rows.add([same])
    assert rows.failed(first, "no", again_in_s=0)  # not a second time: the other waits
    second = take(rows)
    assert second.id != first.id
    assert rows.done(second)
    assert rows.find() == []


def test_many_add_the_same_at_once_and_one_waits(url: str) -> None:
    catalogs = [Catalog.open(url) for _ in range(4)]
    start = threading.Barrier(4)

    def add(catalog: Catalog) -> None:
        for number in range(10):
            start.wait()
            catalog.jobs.add([NewJob(kind="work", unique_key=f"same {number}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, catalogs))
    assert catalogs[0].jobs.count() == {"work": {"waiting": 10}}
    for catalog in catalogs:
        catalog.close()


# --- tokens --------------------------------------------------------------------------------------------------------


def test_a_job_whose_taker_is_lost_is_taken_again_and_the_lost_one_can_do_nothing(rows: JobRows) -> None:
    rows.add([NewJob(kind="work")])
    lost = take(rows, lease_s=0)
    again = take(rows)
    assert (again.id, again.attempts, again.error) == (lost.id, 2, "Whoever carried it out was lost")
    assert not rows.done(lost)
    assert not rows.failed(lost, "late", again_in_s=0)
    assert not rows.failed(lost, "late", again_in_s=None)
    assert not rows.give_back(lost)
    assert not rows.renew(lost, lease_s=60)
    assert rows.renew(again, lease_s=60)
    assert rows.done(again)


def test_a_renewed_job_stays_its_takers(rows: JobRows) -> None:
    rows.add([NewJob(kind="work")])
    job = take(rows, lease_s=0)
    assert rows.renew(job, lease_s=60)
    assert rows.take(["work"], lease_s=60) is None


def test_what_is_given_back_was_not_tried(rows: JobRows) -> None:
    rows.add([NewJob(kind="work")])
    assert rows.give_back(take(rows))
    assert take(rows).attempts == 1


def test_a_lost_job_gives_way_to_one_that_does_the_same(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", unique_key="same")])
    lost = take(rows, lease_s=0)
    rows.add([NewJob(kind="work", unique_key="same")])
    rows.wake()
    assert [job.id for job in rows.find()] != [lost.id]
    assert states(rows) == ["waiting"]


# --- failing -------------------------------------------------------------------------------------------------------


def test_a_failed_job_is_tried_again_when_its_time_has_come(rows: JobRows) -> None:
    rows.add([NewJob(kind="work")])
    assert rows.failed(take(rows), "no", again_in_s=3600)
    assert states(rows) == ["later"]
    assert rows.take(["work"], lease_s=60) is None
    assert rows.retry() == 0  # it is not dead
    rows.add([NewJob(kind="work")])
    assert rows.failed(take(rows), "no", again_in_s=0)
    assert take(rows).attempts == 2


def test_a_time_that_has_come_is_noticed_by_who_takes(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", due_in_s=0.000_001)])
    assert take(rows).attempts == 1


def test_the_dead_are_kept_with_their_error_and_can_be_retried(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", ident="a"), NewJob(kind="other", ident="b")])
    assert rows.failed(take(rows), "bad \0 \ud800 " + "x" * 5000, again_in_s=None)
    (dead,) = rows.find(state="dead")
    assert dead.error is not None
    assert dead.error.startswith("bad \ufffd ? x")
    assert len(dead.error) == 1000
    assert rows.take(["work"], lease_s=60) is None
    assert rows.retry(kind="other") == 0
    assert rows.retry(ids=[dead.id], kind="work", ident="a") == 1
    assert take(rows).attempts == 1


def test_a_dead_job_does_not_keep_others_that_would_do_the_same_away(rows: JobRows) -> None:
    same = NewJob(kind="work", unique_key="same")
    rows.add([same])
    rows.failed(take(rows), "no", again_in_s=None)
    rows.add([same])
    assert sorted(states(rows)) == ["dead", "waiting"]
    assert rows.retry() == 1  # what waits does it
    assert states(rows) == ["waiting"]


def test_a_repeated_job_is_as_new(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", unique_key="work")])
    assert rows.repeat(take(rows), in_s=100, error="last time")
    (job,) = rows.find()
    assert (job.state, job.attempts, job.error) == ("later", 0, "last time")
    rows.add([NewJob(kind="work", unique_key="work")])
    assert len(rows.find()) == 1


def test_dropped_jobs_are_gone(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", ident=str(n)) for n in range(3)] + [NewJob(kind="other")])
    running = take(rows)
    assert rows.drop(kind="work", state="waiting") == 2
    assert rows.drop(ids=[running.id]) == 1
    assert not rows.done(running)
    assert rows.drop() == 1


# --- turns ---------------------------------------------------------------------------------------------------------


def order(rows: JobRows, *kinds: str) -> str:
    """Take everything; return the callers in order."""
    taken = []
    while (job := rows.take(kinds or ("work",), lease_s=LEASE_S)) is not None:
        taken.append(job.caller)
        rows.done(job)
    return "".join(taken)


def test_callers_take_turns_however_many_jobs_they_have(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", caller="a")] * 6)
    rows.add([NewJob(kind="work", caller="b")] * 2)
    rows.add([NewJob(kind="work", caller="c")])
    taken = order(rows)
    assert sorted(taken[:3]) == ["a", "b", "c"]
    assert sorted(taken[3:5]) == ["a", "b"]
    assert taken[5:] == "aaaa"


def test_who_comes_late_does_not_catch_up_on_turns_that_were_not_used(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", caller="a")] * 20)
    for _ in range(10):
        rows.done(take(rows))
    rows.add([NewJob(kind="work", caller="b")] * 5)
    taken = order(rows)
    assert taken[:10].count("b") == 5
    assert "bbb" not in taken


def test_a_costly_job_moves_its_caller_back(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", caller="a", cost=5)] * 3)
    rows.add([NewJob(kind="work", caller="b")] * 10)
    assert order(rows)[:7].count("b") == 5


def test_a_retried_job_stands_in_line_again(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", caller="a")] * 3)
    rows.add([NewJob(kind="work", caller="b")] * 3)
    failing = take(rows)
    rows.failed(failing, "no", again_in_s=0)
    assert order(rows)[-1] == failing.caller


def test_a_caller_is_served_by_turn_over_all_kinds(rows: JobRows) -> None:
    rows.add([NewJob(kind="work", caller="a")] * 4)
    rows.add([NewJob(kind="other", caller="b")] * 2)
    assert sorted(order(rows, "work", "other")[:4]) == ["a", "a", "b", "b"]


def test_what_somebody_waits_for_comes_first(rows: JobRows) -> None:
    rows.add([NewJob(kind="warm", caller="i", priority=IDLE)] * 2)
    rows.add([NewJob(kind="work", caller="n")] * 2)
    rows.add([NewJob(kind="work", caller="s", priority=SOON)] * 2)
    assert order(rows, "warm", "work") == "ssnnii"


# --- batches -------------------------------------------------------------------------------------------------------


def batch(*kinds: str) -> list[NewJob]:
    return [NewJob(kind=kind, batch="b", waits=kind == "last") for kind in kinds]


def test_a_job_waits_until_the_rest_of_its_batch_is_done_or_dead(rows: JobRows) -> None:
    rows.add(batch("last", "one", "two", "three"))
    told: list[str] = []
    rows.announce = told.extend
    assert rows.take(["last"], lease_s=60) is None
    rows.done(take(rows, "one"))
    rows.failed(take(rows, "two"), "no", again_in_s=None)
    rows.failed(take(rows, "three"), "no", again_in_s=0)
    assert rows.take(["last"], lease_s=60) is None
    del told[:]
    rows.done(take(rows, "three"))
    assert told == [take(rows, "last").id]


def test_a_batch_without_a_rest_waits_for_nothing(rows: JobRows) -> None:
    rows.add(batch("last"))
    assert take(rows, "last").batch == "b"
    rows.add([NewJob(kind="one", batch="c"), NewJob(kind="last", batch="c", waits=True)])
    rows.drop(kind="one")
    assert take(rows, "last").batch == "c"


def test_jobs_of_one_batch_that_end_at_the_same_time_release_the_last(url: str) -> None:
    with closing(Catalog.open(url)) as catalog, ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            catalog.jobs.add(batch("one", "one", "one", "one", "last"))
            mine = [take(catalog.jobs, "one") for _ in range(4)]
            assert list(pool.map(catalog.jobs.done, mine)) == [True] * 4
            assert catalog.jobs.done(take(catalog.jobs, "last"))


def test_a_job_of_a_batch_is_always_its_own(rows: JobRows) -> None:
    """Another that does the same would not be waited for."""
    rows.add([NewJob(kind="work", unique_key="same"), NewJob(kind="work", unique_key="same", batch="b")])
    assert len(rows.find()) == 2
    with pytest.raises(ValueError, match="batch"):
        NewJob(kind="work", waits=True)


# --- messages ------------------------------------------------------------------------------------------------------


def test_a_job_is_taken_by_its_id_once(rows: JobRows) -> None:
    rows.add([NewJob(kind="work"), NewJob(kind="work", due_in_s=60)])
    waiting, later = sorted(rows.find(), key=lambda job: job.state, reverse=True)
    for nonsense in ("", "x", "' OR 1=1 --", "x" * 100_000, later.id):
        assert rows.take_by_id(nonsense, ["work"], lease_s=60) is None
    assert rows.take_by_id(waiting.id, ["other"], lease_s=60) is None
    job = rows.take_by_id(waiting.id, ["work"], lease_s=60)
    assert job is not None
    assert rows.take_by_id(waiting.id, ["work"], lease_s=60) is None
    assert rows.get(waiting.id) == job
    assert rows.get("x") is None


def test_what_nobody_was_told_of_is_found_once(rows: JobRows) -> None:
    rows.add([NewJob(kind="work"), NewJob(kind="work", due_in_s=0.000_001), NewJob(kind="work", due_in_s=60)])
    assert len(rows.unannounced(for_s=3600)) == 1  # that whose time has come
    assert rows.unannounced(for_s=3600) == []
    assert len(rows.unannounced(for_s=0)) == 2


def test_each_unannounced_job_goes_to_one_who_asks(url: str) -> None:
    catalogs = [Catalog.open(url) for _ in range(3)]
    catalogs[0].jobs.add([NewJob(kind="work", due_in_s=0.000_001) for _ in range(30)])
    start = threading.Barrier(3)

    def ask(catalog: Catalog) -> list[str]:
        start.wait()
        return [found for _ in range(10) for found in catalog.jobs.unannounced(for_s=3600, limit=5)]

    with ThreadPoolExecutor(3) as pool:
        found = [job_id for mine in pool.map(ask, catalogs) for job_id in mine]
    assert sorted(found) == sorted(job.id for job in catalogs[0].jobs.find())
    for catalog in catalogs:
        catalog.close()


# --- many ----------------------------------------------------------------------------------------------------------

MANY = 8_000
ACTS: dict[str, Callable[[JobRows], object]] = {
    "take": lambda rows: rows.done(take(rows, "rare", "none")),
    "take nothing": lambda rows: rows.take(["none"], lease_s=1),
    "add": lambda rows: rows.add([NewJob(kind="rare", caller="z", unique_key="new")]),
    "fail": lambda rows: rows.failed(take(rows, "rare"), "no", again_in_s=9),
    "unannounced": lambda rows: rows.unannounced(for_s=1e9),
}


@pytest.fixture(scope="module", params=["sqlite", "sqlite analyzed", "postgresql"])
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A catalog in which many jobs of another kind wait, later and dead."""
    url = f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'catalog.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("new_database")()
    with closing(Catalog.open(url)) as catalog:
        for state in ("waiting", "later", "dead", "running"):
            catalog.jobs.add(
                [NewJob(kind="common", caller=f"c{n % 20}", unique_key=f"{state} {n}") for n in range(MANY // 4)]
            )
            with catalog._database.writing() as connection:
                moved = "UPDATE jobs SET state = :state, due_us = due_us + 3600000000 WHERE unique_key LIKE :mine"
                connection.execute(text(moved), {"state": state, "mine": f"{state} %"})
        if request.param != "sqlite":
            with catalog._database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("ANALYZE"))
            catalog._database._engine.dispose()
        yield catalog


@pytest.mark.parametrize("act", ACTS)
def test_no_statement_looks_at_all_jobs(crowded: Catalog, act: str) -> None:
    crowded.jobs.drop(kind="rare")
    crowded.jobs.add([NewJob(kind="rare", caller="z", unique_key=str(n)) for n in range(3)])
    engine = crowded._database._engine
    seen: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, ___: object, many: bool) -> None:
        if statement.startswith(("SELECT jobs", "UPDATE", "DELETE")):
            seen.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    ACTS[act](crowded.jobs)
    event.remove(engine, "before_cursor_execute", note)
    assert seen
    explain = "EXPLAIN QUERY PLAN " if crowded._database.is_sqlite else "EXPLAIN "
    with engine.connect() as connection:
        for statement, parameters in seen:
            said = "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters))
            assert "SCAN" not in said, f"{statement}\n{said}"
            assert "Seq Scan" not in said, f"{statement}\n{said}"
            assert "TEMP B-TREE" not in said, f"{statement}\n{said}"
            assert "Sort" not in said, f"{statement}\n{said}"
