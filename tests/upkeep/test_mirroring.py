"""A replica is compared with its library, and repaired: whatever was done to it by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.pictures import encoded, jpg, quadrants
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import StoreFailed
from lazypix.jobs.replicating import Replicating
from lazypix.orders import Wish
from lazypix.replicas.layout import IMAGESERVER, Layout, OwnKeys
from lazypix.replicas.replica import Replica
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.mirroring import Mirror, compare, repair

SIZE = "60x30,fit=cover,quality=90"
KEYS: dict[str, tuple[str, str, str]] = {
    "own": ("cat/origin.jpg", f"cat/{SIZE}.jpg", "dog/origin.png"),
    "seed": ("image/cat.jpg", "image/60/cat.jpg", "image/dog.jpg"),
}
LAYOUTS: dict[str, Layout] = {"own": OwnKeys(), "seed": IMAGESERVER}


@pytest.fixture
def copies() -> WrappedStore:
    return WrappedStore(MemoryStore())


@pytest.fixture(params=["own", "seed"])
def layout(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def library(tmp_path: Path, copies: WrappedStore, layout: str) -> Iterator[Library]:
    replica = Replica(name="one", store=copies, layout=LAYOUTS[layout], what="all")
    with Library.open(tmp_path / "library", engine=ThreadEngine(2), replicas=[replica], undelete_s=600) as opened:
        opened.add(jpg(quadrants()), ident="cat")
        opened.add(encoded(quadrants()), ident="dog")
        opened.variant("cat", f"{SIZE},format=jpg")
        carry_out(opened)
        yield opened


def carry_out(library: Library) -> None:
    while (job := library.catalog.jobs.take(["replicate:one"], lease_s=60)) is not None:
        Replicating(library, library.replicas[0]).carry_out(job)
        library.catalog.jobs.done(job)


def found(library: Library, *, contents: bool = False) -> set[tuple[str, str]]:
    differences = compare(Mirror(library, library.replicas[0]), library, contents=contents)
    return {(difference.kind, difference.key) for difference in differences}


def mend(library: Library, *, contents: bool = False) -> dict[str, str | None]:
    done = repair(Mirror(library, library.replicas[0]), library, contents=contents)
    return {difference.key: error for difference, error in done}


def test_what_is_whole_has_no_difference(library: Library) -> None:
    seen: list[int] = []
    mirror = Mirror(library, library.replicas[0])
    assert list(compare(mirror, library, contents=True, progress=seen.append)) == []
    assert seen[-1] == 2


def test_what_was_deleted_by_hand_is_found_and_put_back(library: Library, copies: WrappedStore, layout: str) -> None:
    original, size, other = KEYS[layout]
    bodies = {key: copies.get(key) for key in (original, size, other)}
    for key in (original, size):
        copies.delete(key)
    copies.put(other, b"something shorter")
    assert found(library) == {("missing", original), ("missing", size), ("different", other)}
    assert mend(library) == {original: None, size: None, other: None}
    assert {key: copies.get(key) for key in bodies} == bodies
    assert found(library, contents=True) == set()


def test_flipped_bytes_are_found_by_reading(library: Library, copies: WrappedStore, layout: str) -> None:
    for key in KEYS[layout]:
        body = copies.get(key)
        copies.put(key, body[:-1] + bytes([body[-1] ^ 1]))
    assert found(library) == set()
    assert found(library, contents=True) == {("different", key) for key in KEYS[layout]}
    assert mend(library, contents=True) == dict.fromkeys(KEYS[layout])
    assert found(library, contents=True) == set()


def test_what_is_left_of_the_deleted_goes_and_what_is_not_ours_stays(
    library: Library, copies: WrappedStore, layout: str
) -> None:
    original, size, _ = KEYS[layout]
    bodies = {key: copies.get(key) for key in (original, size)}
    library.delete("cat", for_good=True)
    assert found(library) == {("waiting", original), ("waiting", size)}
    carry_out(library)
    for key, body in bodies.items():
        copies.put(key, body)  # restored by hand, from a backup
    foreign = original.replace("cat", "nobody")
    for key in (foreign, "notes.txt", "some/where/else.bin"):
        copies.put(key, b"mine")
    strangers = {("unknown", key) for key in (foreign, "notes.txt", "some/where/else.bin")}
    assert found(library) == {("deleted", original), ("deleted", size)} | strangers
    assert mend(library) == {original: None, size: None}
    assert found(library) == strangers


def test_the_trash_is_neither_missing_nor_left_over(library: Library, copies: WrappedStore, layout: str) -> None:
    library.delete("cat")
    library.delete("dog")
    copies.delete(KEYS[layout][2])
    assert found(library) == set()
    library.undelete("cat")
    library.undelete("dog")
    assert found(library) == {("waiting", KEYS[layout][2])}
    carry_out(library)
    assert found(library) == set()


def test_what_a_job_waits_for_is_not_missing_but_what_was_given_up_is(library: Library, layout: str) -> None:
    library.add(jpg(quadrants(50, 40)), ident="new")
    key = KEYS[layout][0].replace("cat", "new")
    assert found(library) == {("waiting", key)}
    job = library.catalog.jobs.take(["replicate:one"], lease_s=60)
    assert job is not None
    library.catalog.jobs.failed(job, "the cloud said no", again_in_s=None)
    assert found(library) == {("missing", key)}
    assert mend(library) == {key: None}


def test_an_evicted_variant_that_is_there_still_is_no_fault(
    library: Library, copies: WrappedStore, layout: str
) -> None:
    library.shelf.remove([("cat", variant) for variant in library.catalog.variants.of("cat")])
    assert found(library) == set()
    assert KEYS[layout][1] in [blob.key for blob in copies.list()]
    carry_out(library)
    assert KEYS[layout][1] not in [blob.key for blob in copies.list()]


def test_what_cannot_be_repaired_is_told_and_the_rest_is_mended(
    library: Library, copies: WrappedStore, layout: str
) -> None:
    original, size, other = KEYS[layout]
    for key in (original, size, other):
        copies.delete(key)
    path = library.original_path(library.get("dog"))
    assert path is not None
    path.unlink()
    errors = mend(library)
    assert (errors[original], errors[size]) == (None, None)
    assert "not in the store" in (errors[other] or "")
    assert found(library) == {("missing", other)}


def test_a_replica_that_is_away_is_said_to_be(library: Library, copies: WrappedStore) -> None:
    def away(verb: str, key: str) -> None:
        raise StoreFailed(f"{verb}: away")

    copies.before = away  # type: ignore[method-assign]
    with pytest.raises(StoreFailed, match="away"):
        found(library)


def test_an_image_that_is_deleted_while_it_is_repaired_is_not_left(
    library: Library, copies: WrappedStore, layout: str
) -> None:
    original = KEYS[layout][0]
    copies.delete(original)

    def deleting(verb: str, key: str) -> None:
        if (verb, key) == ("put", original):
            library.delete("cat", for_good=True)
            carry_out(library)

    copies.before = deleting  # type: ignore[method-assign]
    mend(library)
    assert not [blob.key for blob in copies.list() if "cat" in blob.key]


def test_named_sizes_are_missed_and_those_only_asked_for_are_not(tmp_path: Path) -> None:
    copies = MemoryStore()
    replica = Replica(name="one", store=copies, what="named", layout=IMAGESERVER)
    with Library.open(tmp_path / "library", engine=ThreadEngine(2), replicas=[replica]) as library:
        library.add(jpg(quadrants()), ident="cat")
        library.variant("cat", "70x30,fit=cover,quality=90,format=jpg")
        library.order(library.get("cat"), Wish(sizes=(f"{SIZE},format=jpg",)))
        carry_out(library)
        for blob in list(copies.list()):
            copies.delete(blob.key)
        assert found(library) == {("missing", "image/cat.jpg"), ("missing", "image/60/cat.jpg")}
        assert mend(library) == {"image/cat.jpg": None, "image/60/cat.jpg": None}
        assert [blob.key for blob in copies.list()] == ["image/60/cat.jpg", "image/cat.jpg"]
