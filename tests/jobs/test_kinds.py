"""What a library has done in the background: sizes ahead, sweeping, scrubbing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, noise
from tests.waiting import until

from lazypix import Library
from lazypix.catalog.jobs import Job
from lazypix.composition import make_kinds, make_runner
from lazypix.engine.idle import IdleEngine
from lazypix.errors import BadTransform
from lazypix.jobs import Interrupted, Kind
from lazypix.jobs.kinds import scrubbing, warm
from lazypix.orders import warm_jobs
from lazypix.settings import load
from lazypix.stores.local import LocalStore
from lazypix.transform import Transform

PICTURE = jpg(noise(400, 300))
SIZES = [Transform.parse("100x80,fit=cover"), Transform.parse("50x")]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path) as opened:
        opened.add(PICTURE, ident="cat")
        yield opened


def taken(library: Library, kind: str) -> Job:
    job = library.catalog.jobs.take([kind], lease_s=60)
    assert job is not None
    return job


def test_named_sizes_are_made_though_the_process_that_was_told_is_gone(tmp_path: Path) -> None:
    with Library.open(tmp_path) as library:
        with library.incoming.new() as incoming:
            incoming.write(PICTURE)
            library.add_incoming(incoming, ident="cat", jobs=lambda image: warm_jobs(image.ident, SIZES))
        assert library.variants("cat") == []
    with Library.open(tmp_path) as library, make_runner(load({"data": tmp_path}, {}), library) as runner:
        runner.finish()
        assert sorted(variant.stem for variant in library.variants("cat")) == ["100x80,fit=cover", "50x"]


def test_a_size_that_is_named_twice_is_made_once(library: Library) -> None:
    jobs = library.catalog.jobs
    jobs.add(warm_jobs("cat", SIZES))
    jobs.add(warm_jobs("cat", SIZES, caller="another"))
    assert jobs.count() == {"warm": {"waiting": 2}}


def test_a_size_of_an_image_that_was_deleted_is_done_with(library: Library) -> None:
    library.catalog.jobs.add(warm_jobs("cat", SIZES))
    library.delete("cat")
    warm(library).carry_out(taken(library, "warm"))


def test_a_size_that_cannot_be_is_the_jobs_own_fault(library: Library) -> None:
    library.catalog.jobs.add(warm_jobs("cat", [Transform.parse("crop=1000:1000:500:500")]))
    with pytest.raises(BadTransform):
        warm(library).carry_out(taken(library, "warm"))


def kind_of(library: Library, name: str, **settings: object) -> Kind:
    kinds = make_kinds(load({"data": "unused", **settings}, {}), library, threading.Event())
    (kind,) = (kind for kind in kinds if kind.name == name)
    return kind


def scrub_once(library: Library, **settings: object) -> None:
    jobs, kind = library.catalog.jobs, kind_of(library, "scrub", **settings)
    jobs.ensure("scrub", in_s=0.000001)
    kind.carry_out(taken(library, "scrub"))
    jobs.drop(kind="scrub")


def test_originals_are_verified_by_the_way(tmp_path: Path) -> None:
    with Library.open(tmp_path) as library:
        library.add(PICTURE, ident="cat")
        assert isinstance(library.store, LocalStore)
        (library.store.root / "cat" / "origin.jpg").write_bytes(PICTURE[:-1] + b"?")

        def found() -> bool:
            scrub_once(library, scrub_rate=100_000_000, scrub_days=0.000001)
            return library.get("cat").damaged

        until(found)
    with Library.open(tmp_path, engine=IdleEngine()) as library:
        assert library.get("cat").damaged


def test_what_only_looked_damaged_is_served_again_without_help(library: Library) -> None:
    library.add(PICTURE, ident="dog")
    library.catalog.health.mark("cat", damaged=True)  # by a read over a bad connection
    assert isinstance(library.store, LocalStore)
    (library.store.root / "dog" / "origin.jpg").write_bytes(b"")

    def mended() -> bool:
        scrub_once(library)
        library.originals.forget("cat")
        return not library.get("cat").damaged

    until(mended)
    assert not library.get("dog").damaged, "nothing else is read as long as no rate is set"


def test_a_scrub_ends_when_its_process_does(library: Library) -> None:
    stopping = threading.Event()
    library.catalog.health.mark("cat", damaged=True)
    library.catalog.jobs.ensure("scrub", in_s=0.000001)
    kind = scrubbing(library, bytes_per_s=0, older_than_s=1, stopping=stopping)
    stopping.set()
    with pytest.raises(Interrupted):
        kind.carry_out(taken(library, "scrub"))


def test_a_sweep_finishes_what_was_left_half_done(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.catalog.begin_delete("cat")
    now = time.time_ns()
    library.catalog.jobs.ensure("sweep", in_s=0.000001)
    job = taken(library, "sweep")
    kind_of(library, "sweep").carry_out(job)
    assert library.catalog.states(["cat"]) == {"cat": "deleting"}, "too young: somebody may be at it"
    monkeypatch.setattr(time, "time_ns", lambda: now + 4000 * 10**9)
    kind_of(library, "sweep").carry_out(job)
    assert library.catalog.states(["cat"]) == {"cat": "deleted"}


def test_upkeep_is_done_by_one_process_of_all(tmp_path: Path) -> None:
    settings = load({"data": tmp_path}, {})
    with (
        Library.open(tmp_path) as one,
        Library.open(tmp_path) as two,
        make_runner(settings, one),
        make_runner(settings, two),
    ):
        rows = one.catalog.jobs
        until(lambda: set(rows.count()) == {"sweep", "scrub"})
        # Whether they are due already, and run, is left to chance.
        assert {kind: sum(states.values()) for kind, states in rows.count().items()} == {"sweep": 1, "scrub": 1}
