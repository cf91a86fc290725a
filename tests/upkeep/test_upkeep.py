"""Verifying, scrubbing, cleaning, purging, rebuilding: on libraries that were damaged on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.pictures import encoded, jpg, quadrants
from tests.watched import all_blobs

from lazypix import Library, Limits
from lazypix.catalog import Catalog
from lazypix.delivery import Delivery
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import BadRequest, OriginalDamaged, StoreFailed, UnknownImage
from lazypix.http import Request
from lazypix.jobs.replicating import Replicating
from lazypix.replicas.replica import Replica
from lazypix.stores.local import LocalStore
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.cleaning import collect_garbage, purge
from lazypix.upkeep.reindexing import reindex
from lazypix.upkeep.scrubbing import Pace, scrub
from lazypix.upkeep.verifying import verify

JPG, PNG = jpg(quadrants(120, 80)), encoded(quadrants(60, 40))
OLD = time.time() - 86_400


@pytest.fixture
def replica() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def library(tmp_path: Path, replica: MemoryStore) -> Iterator[Library]:
    with Library.open(
        tmp_path / "library", engine=ThreadEngine(2), replicas=[Replica(name="replica", store=replica)], sidecars=True
    ) as opened:
        opened.add(JPG, ident="cat", filename="Cat.jpg", metadata={"who": "me"})
        opened.add(PNG, ident="dog")
        for size in ("60x", "30x20", "20x"):
            opened.variant("cat", size)
        yield opened


def path(library: Library, key: str) -> Path:
    found = library.store.local_path(key)
    assert found is not None
    return found


def flip(file: Path, position: int = -20) -> None:
    """Change one bit, as an ageing disk does."""
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def problems(library: Library, *, contents: bool = True) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.key) for problem in verify(library, contents=contents))


def age(library: Library, *keys: str) -> None:
    for key in keys:
        os.utime(path(library, key), (OLD, OLD))


# --- verify ----------------------------------------------------------------------------------------------------


def test_a_sound_library_has_no_problems(library: Library) -> None:
    library.add(JPG, ident="gone")
    library.delete("gone")
    assert problems(library) == []
    assert problems(library, contents=False) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda lib: flip(path(lib, "cat/origin.jpg")), ("original damaged", "cat/origin.jpg")),
        (lambda lib: path(lib, "cat/origin.jpg").write_bytes(JPG[:-1]), ("original damaged", "cat/origin.jpg")),
        (lambda lib: path(lib, "dog/origin.png").unlink(), ("original missing", "dog/origin.png")),
        (lambda lib: flip(path(lib, "cat/60x.jpg")), ("variant damaged", "cat/60x.jpg")),
        (lambda lib: path(lib, "cat/60x.jpg").unlink(), ("variant missing", "cat/60x.jpg")),
        (lambda lib: lib.store.put("cat/77x.jpg", b"x"), ("unknown variant", "cat/77x.jpg")),
        (lambda lib: lib.store.put("nobody/origin.jpg", JPG), ("unknown image", "nobody/origin.jpg")),
        (lambda lib: lib.store.put("nobody/50x.jpg", b"x"), ("unknown image", "nobody/50x.jpg")),
        (lambda lib: lib.store.put("cat/notes.txt", b"x"), ("foreign blob", "cat/notes.txt")),
        (lambda lib: lib.store.put("cat/50x,fit=none.jpg", b"x"), ("foreign blob", "cat/50x,fit=none.jpg")),
        (lambda lib: lib.store.put("index.html", b"x"), ("foreign blob", "index.html")),
        (lambda lib: lib.store.put("a/b/c/origin.jpg", b"x"), ("foreign blob", "a/b/c/origin.jpg")),
    ],
)  # fmt: skip
def test_each_fault_is_found(
    library: Library, damage: Callable[[Library], object], expected: tuple[str, str]
) -> None:
    damage(library)
    assert problems(library) == [expected]


def test_what_is_left_of_a_deleted_image_is_found(library: Library) -> None:
    library.delete("dog")
    library.sweep(older_than_s=0)
    library.store.put("dog/20x.png", b"late")
    assert problems(library) == [("deleted image", "dog/20x.png")]


def test_what_is_under_way_is_no_problem(library: Library) -> None:
    image = library.get("cat")
    library.catalog.claim(type(image)(ident="new", sha256="", size=3, probe=image.probe, created=image.created))
    library.store.put("new/origin.jpg", b"abc")
    assert problems(library) == []


# --- scrub -----------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_and_never_served_as_good_again(library: Library) -> None:
    delivery = Delivery(library)
    original, stored, new = (
        Request(method="GET", path=p) for p in ("/image/cat.jpg", "/image/60x/cat.jpg", "/image/61x/cat.jpg")
    )
    assert delivery.answer(original).status == 200
    flip(path(library, "cat/origin.jpg"))
    report = scrub(library)
    assert (report.checked, report.damaged, report.mended) == (2, ["cat"], [])
    for _ in range(2):
        answer = delivery.answer(original)
        assert (answer.status, dict(answer.headers)[b"lazypix-error"]) == (503, b"original_damaged")
    assert delivery.answer(stored).status == 200, "variants that were made of the good one are good"
    assert delivery.answer(new).status == 503, "no new one is made of it"
    with pytest.raises(OriginalDamaged):
        library.original("cat")
    assert scrub(library, older_than_s=3600).damaged == ["cat"], "it is looked at again before all others"


def test_it_is_mended_from_the_replica(library: Library, replica: MemoryStore) -> None:
    replica.put("cat/origin.jpg", JPG)
    flip(path(library, "cat/origin.jpg"))
    report = scrub(library)
    assert (report.damaged, report.mended) == ([], ["cat"])
    assert library.original("cat") == JPG
    assert Delivery(library).answer(Request(method="GET", path="/image/61x/cat.jpg")).status == 200
    assert problems(library) == []


def test_a_lost_original_is_mended_too_and_later_if_the_replica_gets_it_later(
    library: Library, replica: MemoryStore
) -> None:
    path(library, "cat/origin.jpg").unlink()
    assert scrub(library).damaged == ["cat"]
    replica.put("cat/origin.jpg", JPG[:-1] + b"?")
    assert scrub(library).damaged == ["cat"], "the copy is damaged too"
    replica.put("cat/origin.jpg", JPG)
    assert scrub(library, older_than_s=3600).mended == ["cat"]
    assert library.original("cat") == JPG


def test_an_original_that_was_put_right_by_hand_is_served_again(library: Library) -> None:
    flip(path(library, "cat/origin.jpg"))
    assert scrub(library).damaged == ["cat"]
    path(library, "cat/origin.jpg").write_bytes(JPG)
    assert scrub(library).damaged == []
    assert library.original("cat") == JPG


def test_a_damaged_original_of_a_store_without_files_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    store = MemoryStore()
    with Library.open(tmp_path, store=store, engine=ThreadEngine(1)) as library:
        library.add(JPG, ident="cat")
        store.put("cat/origin.jpg", JPG[:-5] + b"other")
        with pytest.raises(OriginalDamaged):
            library.variant("cat", "50x")
        assert library.get("cat").damaged


def test_scrubbing_keeps_its_pace_and_its_budget(library: Library) -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(1000, clock=lambda: now[0], sleep=sleep)
    for _ in range(10):
        pace.note(500)
    assert sum(slept) == pytest.approx(5.0)
    assert scrub(library, budget_s=-1).checked == 0
    assert scrub(library, older_than_s=3600).checked == 0, "both were verified when they were stored"


def test_a_store_that_does_not_answer_damages_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[bytes]:
        raise StoreFailed("down")

    monkeypatch.setattr(library.store, "read", fail)
    with pytest.raises(StoreFailed):
        scrub(library)
    monkeypatch.undo()
    assert not library.get("cat").damaged
    assert scrub(library).damaged == []


# --- gc --------------------------------------------------------------------------------------------------------


def test_garbage_is_named_first_and_removed_when_told(library: Library) -> None:
    library.store.put("cat/77x.jpg", b"12345")
    library.store.put("cat/notes.txt", b"x")
    library.store.put("nobody/origin.jpg", JPG)
    age(library, "cat/77x.jpg", "cat/notes.txt", "nobody/origin.jpg")
    path(library, "cat/60x.jpg").unlink()
    before = all_blobs(library)
    found = collect_garbage(library, older_than_s=0)
    assert [p.key for p in found.blobs] == ["cat/77x.jpg"]
    assert (found.bytes, found.rows) == (5, ["cat/60x.jpg"])
    assert sorted(p.key for p in found.kept) == ["cat/notes.txt", "nobody/origin.jpg"]
    assert all_blobs(library) == before, "a dry run"
    collect_garbage(library, remove=True, older_than_s=0)
    assert all_blobs(library) == [key for key in before if key != "cat/77x.jpg"]
    assert [v.name for v in library.variants("cat")] == ["20x.jpg", "30x20.jpg"]
    collect_garbage(library, remove=True, originals=True, older_than_s=0)
    assert "nobody/origin.jpg" not in all_blobs(library)
    assert problems(library) == [("foreign blob", "cat/notes.txt")]


def test_what_is_young_may_be_under_way(library: Library) -> None:
    library.store.put("cat/77x.jpg", b"x")
    path(library, "cat/60x.jpg").unlink()
    found = collect_garbage(library, remove=True)
    assert ([p.key for p in found.kept], found.blobs, found.rows) == (["cat/77x.jpg"], [], [])


# --- purge -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"ident": "cat"}, []),
        ({"ident": "dog"}, ["20x.jpg", "30x20.jpg", "60x.jpg"]),
        ({"size": "60x"}, ["20x.jpg", "30x20.jpg"]),
        ({"size": "*0x"}, ["30x20.jpg"]),
        ({"size": "30x*"}, ["20x.jpg", "60x.jpg"]),
        ({"size": "%"}, ["20x.jpg", "30x20.jpg", "60x.jpg"]),
        ({"unused_for_s": 3600}, ["20x.jpg", "30x20.jpg", "60x.jpg"]),
        ({"unused_for_s": 0}, []),
        ({"everything": True}, []),
    ],
)
def test_purging_drops_variants_only(library: Library, options: dict[str, object], left: list[str]) -> None:
    expected = 3 - len(left)
    assert purge(library, dry_run=True, **options)[0] == expected  # type: ignore[arg-type]
    assert len(library.variants("cat")) == 3
    assert purge(library, **options)[0] == expected  # type: ignore[arg-type]
    assert [variant.name for variant in library.variants("cat")] == left
    assert problems(library) == []
    assert library.original("cat") == JPG
    library.variant("cat", "60x")


def test_a_purged_variant_is_not_served_from_memory(library: Library) -> None:
    delivery, request = Delivery(library), Request(method="GET", path="/image/60x/cat.jpg")
    delivery.answer(request)
    assert delivery.cached(request) is not None
    purge(library, ident="cat")
    assert delivery.cached(request) is None


def test_purging_wants_to_know_what(library: Library) -> None:
    with pytest.raises(BadRequest, match="Say which variants"):
        purge(library)
    with pytest.raises(UnknownImage):
        purge(library, ident="nobody")


# --- caps ------------------------------------------------------------------------------------------------------


def test_the_least_used_variants_of_an_image_go_first(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1), max_variants=3) as library:
        library.add(JPG, ident="cat")
        for width in range(10, 17):
            library.variant("cat", f"{width}x")
        assert [v.stem for v in library.variants("cat")] == ["14x", "15x", "16x"]
        assert all_blobs(library) == ["cat/14x.jpg", "cat/15x.jpg", "cat/16x.jpg", "cat/origin.jpg"]
        assert problems(library) == []


def test_all_variants_together_are_kept_within_their_bound(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1), max_variant_bytes=6000) as library:
        for ident in ("cat", "dog"):
            library.add(JPG, ident=ident)
            for width in range(40, 50):
                library.variant(ident, f"{width}x")
        assert library.catalog.variants.total()[1] > 6000
        library.sweep(older_than_s=0)
        number, size = library.catalog.variants.total()
        assert 6000 - 1500 < size <= 6000
        assert library.variants("cat") == [], "those that were made first are gone"
        assert 0 < len(library.variants("dog")) == number
        assert problems(library) == []


# --- undelete --------------------------------------------------------------------------------------------------


def test_a_deleted_image_can_be_had_back_for_a_while(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1), undelete_s=3600) as library:
        library.add(JPG, ident="cat", metadata={"a": 1})
        library.variant("cat", "50x")
        delivery, request = Delivery(library), Request(method="GET", path="/image/50x/cat.jpg")
        delivery.answer(request)
        library.delete("cat")
        assert delivery.answer(request).status == 404
        assert library.list() == []
        library.sweep(older_than_s=0)
        assert library.undelete("cat").metadata == {"a": 1}
        assert delivery.answer(request).status == 200
        with pytest.raises(UnknownImage, match="can be had back"):
            library.undelete("cat")
        library.delete("cat", for_good=True)
        with pytest.raises(UnknownImage, match="can be had back"):
            library.undelete("cat")
        assert all_blobs(library) == []


def test_the_trash_is_emptied_when_its_time_is_over(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1), undelete_s=0.01) as library:
        library.add(JPG, ident="cat")
        library.delete("cat")
        assert all_blobs(library) == ["cat/origin.jpg"]
        time.sleep(0.02)
        library.sweep(older_than_s=0)
        assert all_blobs(library) == []
        with pytest.raises(UnknownImage):
            library.undelete("cat")


def test_a_deletion_reaches_the_replica(library: Library, replica: MemoryStore) -> None:
    replica.put("cat/origin.jpg", JPG)
    replica.put("other/origin.jpg", JPG)
    library.delete("cat")
    for job in iter(lambda: library.catalog.jobs.take(["replicate:replica"], lease_s=60), None):
        Replicating(library, library.replicas[0]).carry_out(job)
    assert [blob.key for blob in replica.list()] == ["dog/origin.png", "other/origin.jpg"]


# --- reindex ---------------------------------------------------------------------------------------------------


def test_a_lost_catalog_is_rebuilt_from_the_store(library: Library, tmp_path: Path) -> None:
    expected = {ident: library.get(ident) for ident in ("cat", "dog")}
    variants = library.variants("cat")
    assert isinstance(library.store, LocalStore)
    with Library.open(tmp_path / "new", store=LocalStore(library.store.root), engine=ThreadEngine(1)) as rebuilt:
        report = reindex(rebuilt)
        assert (report.added, report.known, report.variants, report.without_sidecar, report.failed) == (
            2,
            0,
            3,
            0,
            {},
        )
        assert {ident: rebuilt.get(ident) for ident in expected} == expected
        assert [(v.name, v.sha256) for v in rebuilt.variants("cat")] == [(v.name, v.sha256) for v in variants]
        assert problems(rebuilt) == []
        again = reindex(rebuilt)
        assert (again.added, again.known, again.variants) == (0, 2, 0)
        assert [image.ident for image in rebuilt.list()] == ["dog", "cat"]


def test_what_no_sidecar_tells_is_lost_and_said_to_be(library: Library, tmp_path: Path) -> None:
    library.store.delete("cat/image.json")
    library.store.put("dog/image.json", b'{"sha256": 5}')
    assert isinstance(library.store, LocalStore)
    with Library.open(tmp_path / "new", store=LocalStore(library.store.root), engine=ThreadEngine(1)) as rebuilt:
        report = reindex(rebuilt)
        assert (report.added, report.without_sidecar) == (2, 2)
        assert rebuilt.get("cat").sha256 == hashlib.sha256(JPG).hexdigest()
        assert (rebuilt.get("cat").filename, rebuilt.get("cat").metadata) == (None, {})


def test_a_damaged_original_is_not_taken_for_a_new_one(library: Library, tmp_path: Path) -> None:
    flip(path(library, "cat/origin.jpg"))
    path(library, "dog/origin.png").write_bytes(PNG[:-30])
    assert isinstance(library.store, LocalStore)
    with Library.open(tmp_path / "new", store=LocalStore(library.store.root), engine=ThreadEngine(1)) as rebuilt:
        report = reindex(rebuilt)
        assert report.added == 0
        assert set(report.failed) == {"cat", "dog"}
        assert rebuilt.list() == []


def test_a_sidecar_tells_what_only_the_catalog_knows(library: Library) -> None:
    facts = json.loads(library.store.get("cat/image.json"))
    assert (facts["filename"], facts["metadata"], facts["sha256"]) == (
        "Cat.jpg",
        {"who": "me"},
        library.get("cat").sha256,
    )


def test_a_catalog_that_fails_while_it_is_rebuilt_costs_no_original(library: Library, tmp_path: Path) -> None:
    assert isinstance(library.store, LocalStore)
    with Library.open(tmp_path / "new", store=LocalStore(library.store.root), engine=ThreadEngine(1)) as rebuilt:
        write = rebuilt.catalog._database.writing
        turns = iter([True, False, True, False])

        def failing() -> AbstractContextManager[Any]:
            if next(turns, False):
                raise StoreFailed("The catalog is not available")
            return write()

        rebuilt.catalog._database.writing = failing  # type: ignore[method-assign, assignment]
        reindex(rebuilt)
        rebuilt.catalog._database.writing = write  # type: ignore[method-assign]
        rebuilt.sweep(older_than_s=0)
        assert library.original("cat") == JPG
        assert library.original("dog") == PNG
        reindex(rebuilt)
        assert {image.ident for image in rebuilt.list()} == {"cat", "dog"}


def test_an_image_that_cannot_be_removed_does_not_keep_the_others(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.catalog.begin_delete("cat")
    library.catalog.begin_delete("dog")
    remove = library.store.delete_prefix

    def fail_for_cat(prefix: str) -> int:
        if prefix.startswith("cat"):
            raise StoreFailed("not now")
        return remove(prefix)

    monkeypatch.setattr(library.store, "delete_prefix", fail_for_cat)
    library.sweep(older_than_s=0)
    assert library.catalog.states(["cat", "dog"]) == {"cat": "deleting", "dog": "gone"}
    monkeypatch.undo()
    library.sweep(older_than_s=0)
    assert library.catalog.states(["cat"]) == {"cat": "gone"}


def test_an_original_that_lost_bytes_is_not_served(library: Library) -> None:
    for size in (0, 10):
        path(library, "cat/origin.jpg").write_bytes(JPG[:size])
        library.catalog.health.mark("cat", damaged=False)
        library.originals.forget("cat")
        assert Delivery(library).answer(Request(method="GET", path="/image/cat.jpg")).status == 503
        assert library.get("cat").damaged


def test_images_over_a_limit_that_came_later_are_still_served(tmp_path: Path) -> None:
    store, catalog = MemoryStore(), Catalog.sqlite(tmp_path / "catalog.sqlite")
    with Library.open(tmp_path / "a", store=store, catalog=catalog, engine=ThreadEngine(1)) as before:
        before.add(JPG, ident="cat")
    lower = Limits(max_bytes=100)
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    with Library.open(tmp_path / "a", store=store, catalog=catalog, engine=ThreadEngine(1), limits=lower) as after:
        assert after.variant("cat", "20x").body


def test_a_purge_in_the_middle_of_storing_leaves_no_blob(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        library.add(JPG, ident="cat")
        put = library.store.put

        def purged_meanwhile(key: str, source: bytes | Path, *, durable: bool = True) -> None:
            purge(library, ident="cat")
            put(key, source, durable=durable)

        library.store.put = purged_meanwhile  # type: ignore[method-assign]
        library.variant("cat", "20x")
        assert all_blobs(library) == ["cat/origin.jpg"]
        assert problems(library) == []
