"""A copy of a library is complete and verified, whatever happens on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.upkeep.libraries import JPG, PNG, check_same, fill
from tests.waiting import WAIT_S
from tests.watched import all_blobs
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.catalog import Catalog, Search
from lazypix.engine.idle import IdleEngine
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import StoreFailed, StoreFull, UnknownImage
from lazypix.keys import KeyScheme
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.copying import copy_library
from lazypix.upkeep.report import Report

Open = Callable[..., Library]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Library]:
    """A library that keeps what was deleted for a while."""
    with Library.open(tmp_path / "source", engine=ThreadEngine(2), undelete_s=3600) as opened:
        yield opened


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """A function that opens a library in a new folder, or in the one that is named."""
    with ExitStack() as stack:

        def open_it(name: str = "target", **options: Any) -> Library:
            return stack.enter_context(Library.open(tmp_path / name, engine=IdleEngine(), **options))

        yield open_it


def test_everything_is_copied_with_all_that_is_known(source: Library, opened: Open) -> None:
    fill(source)
    target = opened()
    seen: list[Report] = []
    report = copy_library(source, target, progress=seen.append)
    check_same(source, target)
    assert (report.copied, report.skipped, report.deleted, report.variants, report.failed) == (6, 0, 1, 3, 0)
    assert report.total == report.done == 7
    assert report.bytes == sum(blob.size for blob in target.store.list())
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[-1] == report
    assert target.get("dog").filename == "ab.png"
    assert [image.ident for image in target.list(search=Search(metadata={"who": "me"}))] == ["cat"]
    all_blobs(target)


def test_a_second_run_reads_nothing(source: Library, opened: Open) -> None:
    fill(source)
    target = opened()
    copy_library(source, target)
    source.store = watched = WrappedStore(source.store)
    report = copy_library(source, target)
    assert (report.copied, report.skipped, report.variants, report.bytes, report.failed) == (0, 7, 0, 0, 0)
    assert watched.calls == []
    check_same(source, target)


def test_keys_are_those_of_the_target(source: Library, opened: Open) -> None:
    fill(source)
    target = opened(store=MemoryStore(), keys=KeyScheme(prefix="img/", shard=2))
    copy_library(source, target, threads=1)
    check_same(source, target)
    assert "img/at/cat/60x.jpg" in {blob.key for blob in target.store.list()}


def test_variants_stay_where_they_are_if_so_wanted(source: Library, opened: Open) -> None:
    fill(source)
    target = opened()
    assert copy_library(source, target, variants=False).variants == 0
    check_same(source, target, variants=False)
    assert copy_library(source, target).variants == 3
    check_same(source, target)


def test_to_another_catalog(source: Library, opened: Open, new_database: Callable[[], str]) -> None:
    fill(source)
    target = opened(catalog=Catalog.open(new_database()), store=MemoryStore())
    assert copy_library(source, target).failed == 0
    check_same(source, target)
    back = opened("back")
    assert copy_library(target, back).failed == 0
    check_same(source, back)


def test_what_changed_in_the_source_is_carried_over(source: Library, opened: Open) -> None:
    fill(source)
    target = opened(undelete_s=3600)
    copy_library(source, target)
    source.undelete("i1")
    source.delete("i2")
    source.delete("i3", for_good=True)
    source.delete("cat", for_good=True)
    source.add(JPG, ident="new")
    report = copy_library(source, target)
    assert (report.copied, report.deleted, report.skipped, report.failed) == (2, 3, 3, 0)
    check_same(source, target)
    for ident in ("i2", "i3", "cat"):
        with pytest.raises(UnknownImage):
            target.get(ident)
    source.undelete("i2")
    source.delete("i1", for_good=True)
    copy_library(source, target)
    source.sweep(older_than_s=0)
    target.sweep(older_than_s=0)
    copy_library(source, target)
    check_same(source, target)


def test_what_is_only_trashed_in_the_target_can_be_deleted_by_the_source(source: Library, opened: Open) -> None:
    source.add(JPG, ident="cat")
    target = opened(undelete_s=3600)
    copy_library(source, target)
    target.delete("cat")
    source.delete("cat", for_good=True)
    assert copy_library(source, target).deleted == 1
    assert all_blobs(target) == []
    assert target.catalog.states(["cat"]) == {"cat": "deleted"}


@pytest.mark.parametrize("damage", ["other", "longer", "shorter", "gone"])
def test_a_damaged_original_is_told_and_never_copied(source: Library, opened: Open, damage: str) -> None:
    fill(source)
    path = source.original_path(source.get("cat"))
    assert path is not None
    bodies = {"other": JPG[:-1] + b"x", "longer": JPG + b"x", "shorter": JPG[:-1]}
    path.unlink() if damage == "gone" else path.write_bytes(bodies[damage])
    target = opened()
    report = copy_library(source, target)
    assert (report.failed, report.copied) == (1, 5)
    ((ident, reason),) = report.failures
    assert ident == "cat"
    assert ("no blob" if damage == "gone" else "damaged") in reason
    assert source.catalog.get("cat").damaged == (damage != "gone")
    assert target.catalog.entries(["cat"]) == {}
    assert not list(target.store.list("cat/"))
    path.write_bytes(JPG)
    source.catalog.health.mark("cat", damaged=False)
    assert copy_library(source, target).copied == 1
    check_same(source, target)


def test_a_damaged_original_of_the_target_is_mended(source: Library, opened: Open) -> None:
    fill(source)
    target = opened()
    copy_library(source, target)
    target.store.put("cat/origin.jpg", b"x")
    target.catalog.health.mark("cat", damaged=True)
    assert copy_library(source, target).copied == 1
    check_same(source, target)
    assert target.original("cat") == JPG


def test_a_bad_variant_is_left_out(source: Library, opened: Open) -> None:
    fill(source)
    source.store.put("cat/60x.jpg", b"x")
    source.store.delete("cat/200x100,fit=cover.webp")
    target = opened()
    report = copy_library(source, target)
    assert (report.failed, report.copied, report.variants) == (0, 6, 1)
    assert [variant.name for variant in target.variants("cat")] == []


def test_an_image_that_is_deleted_while_it_is_copied(source: Library, opened: Open) -> None:
    source.add(JPG, ident="cat")
    target = opened()

    class Deleting(WrappedStore):
        def before(self, verb: str, key: str) -> None:
            if verb == "read":
                source.store = self.store
                source.delete("cat", for_good=True)

    source.store = Deleting(source.store)
    report = copy_library(source, target, threads=1)
    assert (report.failed, report.deleted, report.copied) == (0, 1, 0)
    assert target.catalog.states(["cat"]) == {"cat": "deleted"}
    assert all_blobs(target) == []


def test_other_bytes_in_the_target_are_never_replaced(source: Library, opened: Open, tmp_path: Path) -> None:
    source.add(JPG, ident="cat")
    source.add(JPG, ident="dog")
    source.add(JPG, ident="mouse")
    source.delete("mouse", for_good=True)
    target = opened(store=MemoryStore())
    with Library.open(tmp_path / "third", engine=ThreadEngine(1)) as third:
        third.add(PNG, ident="cat")
        third.add(PNG, ident="mouse")
        copy_library(third, target)
    target.store.create("dog/origin.jpg", b"somebody's")
    report = copy_library(source, target)
    assert (report.failed, report.copied) == (3, 0)
    assert target.original("cat") == target.original("mouse") == PNG
    assert target.store.get("dog/origin.jpg") == b"somebody's"
    assert target.catalog.entries(["dog"]) == {}


def test_what_was_deleted_in_the_target_is_told(source: Library, opened: Open) -> None:
    source.add(JPG, ident="cat")
    target = opened()
    copy_library(source, target)
    target.delete("cat")
    ((_, reason),) = copy_library(source, target).failures
    assert "was deleted there" in reason


def test_somebody_elses_upload_is_not_taken_over(source: Library, opened: Open) -> None:
    image = source.add(JPG, ident="cat")
    target = opened()
    target.catalog.claim(replace(image, created=datetime.now(UTC)))
    report = copy_library(source, target)
    assert "upload" in report.failures[0][1]
    assert all_blobs(target) == []
    target.catalog.publish("cat")  # theirs


def test_an_original_without_a_row_is_adopted(source: Library, opened: Open) -> None:
    source.add(JPG, ident="cat")
    target = opened()
    target.store.create("cat/origin.jpg", JPG)
    assert copy_library(source, target).copied == 1
    check_same(source, target)


class Troubled(WrappedStore):
    """A store in memory that cannot store blobs under a prefix while there is an error."""

    def __init__(self, error: Exception, prefix: str = "") -> None:
        super().__init__(MemoryStore())
        self.error: Exception | None = error
        self.prefix = prefix

    def before(self, verb: str, key: str) -> None:
        super().before(verb, key)
        if self.error is not None and verb in ("create", "put") and key.startswith(self.prefix):
            raise self.error


def test_without_space_nothing_more_is_tried(source: Library, opened: Open) -> None:
    fill(source)

    target = opened(store=(store := Troubled(StoreFull("No space left"))))
    with pytest.raises(StoreFull):
        copy_library(source, target, threads=1)
    assert len([call for call in store.calls if call[0] == "create"]) == 1
    store.error = None
    copy_library(source, target)
    check_same(source, target)


def test_trouble_with_one_image_does_not_stop_the_others(source: Library, opened: Open) -> None:
    fill(source)
    target = opened(store=(store := Troubled(StoreFailed("The store is in trouble"), "cat/")))
    report = copy_library(source, target)
    assert report.failures == (("cat", "The store is in trouble"),)
    store.error = None
    assert copy_library(source, target).copied == 1
    check_same(source, target)


def test_two_copies_at_once_are_one(source: Library, opened: Open) -> None:
    fill(source)
    target = opened()
    reports: list[Report] = []
    threads = [threading.Thread(target=lambda: reports.append(copy_library(source, target))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(reports) == 3
    copy_library(source, target)
    check_same(source, target)
