"""Replicas get what an image has and lose what a deleted one had, in whatever order jobs are carried out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.engine.pictures import encoded, jpg, quadrants
from tests.waiting import until
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.catalog.job_values import Job
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import BadTransform, StoreFailed
from lazypix.jobs.carrier import Carrier
from lazypix.jobs.replicating import LANE, Replicating, replicating
from lazypix.orders import Wish
from lazypix.replicas.layout import IMAGESERVER, Layout, OwnKeys, What
from lazypix.replicas.replica import Replica
from lazypix.stores import BlobStore
from lazypix.stores.local import LocalStore
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.cleaning import purge
from lazypix.upkeep.mirroring import NotCopied

JPG, PNG = jpg(quadrants()), encoded(quadrants())
NAMED = "60x30,fit=cover,quality=90,format=jpg"
YEARS_S = 1e9
"""A wait is random, up to this."""


@contextmanager
def opened(folder: Path, *replicas: Replica, **options: Any) -> Iterator[Library]:
    with Library.open(folder, engine=ThreadEngine(2), replicas=replicas, **options) as library:
        yield library


def carry_out_all(library: Library) -> list[str]:
    """Carry out all jobs that wait; return what those said that failed, which are not tried again."""
    kinds = [replicating(library, replica) for replica in library.replicas]
    carrier = Carrier(
        library.catalog.jobs, [replace(kind, first_wait_s=YEARS_S, longest_wait_s=YEARS_S) for kind in kinds]
    )
    try:
        while (job := carrier.take([LANE])) is not None:
            carrier.carry_out(job)
    finally:
        carrier.close()
    return [job.error or "" for job in library.catalog.jobs.find()]


def keys(store: BlobStore) -> list[str]:
    return [blob.key for blob in store.list()]


def a_job(library: Library) -> Job:
    (kind,) = [replicating(library, replica) for replica in library.replicas]
    job = library.catalog.jobs.take([kind.name], lease_s=60)
    assert job is not None
    return job


@pytest.mark.parametrize(
    ("what", "layout", "expected"),
    [
        ("originals", OwnKeys(), ["cat/origin.png"]),
        ("named", OwnKeys(), ["cat/60x30,fit=cover,quality=90.jpg", "cat/origin.png"]),
        ("all", OwnKeys(), ["cat/60x30,fit=cover,quality=90.jpg", "cat/70x.webp", "cat/origin.png"]),
        ("originals", IMAGESERVER, ["image/cat.jpg"]),
        ("named", IMAGESERVER, ["image/60/cat.jpg", "image/cat.jpg"]),
        ("all", IMAGESERVER, ["image/60/cat.jpg", "image/cat.jpg"]),
    ],
)  # fmt: skip
def test_a_replica_gets_what_it_shall(tmp_path: Path, what: What, layout: Layout, expected: list[str]) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies, what=what, layout=layout)) as library:
        library.add(PNG, ident="cat")
        library.order(library.get("cat"), Wish(sizes=(NAMED,)))
        library.variant("cat", "70x", format="webp")
        assert keys(copies) == []
        assert carry_out_all(library) == []
        assert sorted(keys(copies)) == expected
        for key in expected:
            if key.endswith(("origin.png", "image/cat.jpg")):
                assert copies.get(key) == PNG
            elif "60" in key:
                assert copies.get(key) == library.variant("cat", NAMED).body


def test_each_of_several_has_jobs_of_its_own(tmp_path: Path) -> None:
    class Away(WrappedStore):
        def before(self, verb: str, key: str) -> None:
            raise StoreFailed(f"{verb}: the store is away")

    away = Away(MemoryStore())
    near = MemoryStore()
    replicas = [Replica(name="away", store=away), Replica(name="near", store=near)]
    with opened(tmp_path, *replicas) as library:
        library.add(JPG, ident="cat")
        (error,) = carry_out_all(library)
        assert "the store is away" in error
        assert keys(near) == ["cat/origin.jpg"]
        (job,) = library.catalog.jobs.find()
        assert (job.kind, job.state) == ("replicate:away", "later")


def test_what_comes_back_otherwise_was_not_put(tmp_path: Path) -> None:
    class Flipping(MemoryStore):
        def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
            body = source if isinstance(source, bytes) else source.read_bytes()
            super().put(key, body[:-1] + bytes([body[-1] ^ 1]), durable=durable)

    with opened(tmp_path, Replica(name="bad", store=Flipping())) as library:
        library.add(JPG, ident="cat")
        (error,) = carry_out_all(library)
        assert "other bytes than were put there" in error


def test_a_deletion_reaches_the_replicas_with_all_variants(tmp_path: Path) -> None:
    own, seed = MemoryStore(), MemoryStore()
    replicas = [Replica(name="own", store=own), Replica(name="seed", store=seed, what="all", layout=IMAGESERVER)]
    with opened(tmp_path, *replicas) as library:
        for ident in ("cat", "dog"):
            library.add(JPG, ident=ident)
            library.variant(ident, NAMED)
        carry_out_all(library)
        library.delete("cat")
        assert library.catalog.variants.of("cat") == []
        assert len(keys(own)) == len(keys(seed)) == 4
        assert carry_out_all(library) == []
        assert sorted(keys(own)) == ["dog/60x30,fit=cover,quality=90.jpg", "dog/origin.jpg"]
        assert sorted(keys(seed)) == ["image/60/dog.jpg", "image/dog.jpg"]


def test_the_trash_is_not_replicated_and_what_is_had_back_is(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies), undelete_s=600) as library:
        library.add(JPG, ident="cat")
        library.variant("cat", NAMED)
        library.delete("cat")
        assert carry_out_all(library) == []
        assert keys(copies) == []
        library.undelete("cat")
        assert carry_out_all(library) == []
        assert sorted(keys(copies)) == ["cat/60x30,fit=cover,quality=90.jpg", "cat/origin.jpg"]
        library.delete("cat")
        assert carry_out_all(library) == []
        assert len(keys(copies)) == 2  # it can still be had back
        library.delete("cat", for_good=True)
        assert carry_out_all(library) == []
        assert keys(copies) == []


def test_an_emptied_trash_reaches_the_replicas(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies), undelete_s=0.000_001) as library:
        library.add(JPG, ident="cat")
        carry_out_all(library)
        library.delete("cat")
        library.sweep()
        assert carry_out_all(library) == []
        assert keys(copies) == []


@pytest.mark.parametrize("layout", [OwnKeys(), IMAGESERVER], ids=["own", "seed"])
def test_a_put_that_comes_after_the_deletion_leaves_nothing(tmp_path: Path, layout: Layout) -> None:
    """The worker that puts is overtaken by a deletion, whose own job is done before the put."""
    copies = MemoryStore()
    replica = Replica(name="one", store=copies, layout=layout)
    with opened(tmp_path, replica) as library:
        library.add(JPG, ident="cat")
        putting = a_job(library)

        class Overtaken(WrappedStore):
            def before(self, verb: str, key: str) -> None:
                super().before(verb, key)
                if verb == "put":
                    library.delete("cat")
                    deletion = a_job(library)
                    Replicating(library, replica).carry_out(deletion)
                    library.catalog.jobs.done(deletion)

        late = Overtaken(copies)
        Replicating(library, Replica(name="one", store=late, layout=layout)).carry_out(putting)
        assert "put" in [verb for verb, _ in late.calls]
        assert keys(copies) == []


def test_a_put_that_fails_after_the_deletion_leaves_nothing_either(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies)) as library:
        library.add(JPG, ident="cat")
        job = a_job(library)

        class Cut(WrappedStore):
            def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
                super().put(key, source, durable=durable)
                library.delete("cat")
                raise StoreFailed("the connection was cut after the put")

        with pytest.raises(StoreFailed):
            Replicating(library, Replica(name="one", store=Cut(copies))).carry_out(job)
        assert keys(copies) == []


def test_jobs_can_be_carried_out_twice(tmp_path: Path) -> None:
    copies = MemoryStore()
    replica = Replica(name="one", store=copies)
    with opened(tmp_path, replica) as library:
        library.add(JPG, ident="cat")
        library.order(library.get("cat"), Wish(sizes=(NAMED,)), whole=True)
        jobs = [a_job(library), a_job(library)]
        for job in (*jobs, *jobs):
            Replicating(library, replica).carry_out(job)
        assert len(keys(copies)) == 2
        library.delete("cat")
        deletion = a_job(library)
        for job in (deletion, deletion, *jobs):
            Replicating(library, replica).carry_out(job)
            assert keys(copies) == []


def test_a_folder_that_is_not_mounted_loses_no_deletion(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    replica = Replica(name="disk", store=LocalStore(folder))
    with opened(tmp_path / "library", replica) as library:
        library.add(JPG, ident="cat")
        assert carry_out_all(library) == []
        library.delete("cat")
        folder.rename(tmp_path / "elsewhere")
        (error,) = carry_out_all(library)
        assert "folder cannot be read" in error
        (tmp_path / "elsewhere").rename(folder)
        job = library.catalog.jobs.find()[0]
        Replicating(library, replica).carry_out(job)
        assert keys(replica.store) == []


def test_a_size_that_cannot_be_made_keeps_no_other(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies)) as library:
        library.add(JPG, ident="cat")
        impossible = "10x10,crop=500:500:10:10,format=jpg"
        library.order(library.get("cat"), Wish(sizes=(impossible, NAMED)))
        with pytest.raises(BadTransform):
            library.variant("cat", impossible)
        (error,) = carry_out_all(library)
        assert "crop" in error
        assert sorted(keys(copies)) == ["cat/60x30,fit=cover,quality=90.jpg", "cat/origin.jpg"]
        (job,) = library.catalog.jobs.find()
        assert job.state == "dead"  # it would fail again


def test_a_damaged_original_is_not_replicated_and_the_replica_does_not_rest_for_it(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies)) as library:
        image = library.add(JPG, ident="cat")
        path = library.original_path(image)
        assert path is not None
        path.write_bytes(JPG[:-1] + b"?")
        job = a_job(library)
        with pytest.raises(NotCopied) as caught:
            Replicating(library, library.replicas[0]).carry_out(job)
        assert caught.value.status != StoreFailed.status
        assert keys(copies) == []


def test_of_sizes_that_share_a_key_the_plain_width_has_it(tmp_path: Path) -> None:
    copies = MemoryStore()
    plain, covered = "60x,fit=outside,quality=90,format=jpg", NAMED
    with opened(tmp_path, Replica(name="seed", store=copies, what="named", layout=IMAGESERVER)) as library:
        library.add(JPG, ident="cat")
        for sizes in ((covered,), (plain,), (covered,)):
            library.order(library.get("cat"), Wish(sizes=sizes))
            assert carry_out_all(library) == []
        assert copies.get("image/60/cat.jpg") == library.variant("cat", plain).body


@pytest.mark.parametrize("layout", [OwnKeys(), IMAGESERVER], ids=["own", "seed"])
@pytest.mark.parametrize("what", ["named", "all"])
def test_what_is_purged_here_goes_there_too(tmp_path: Path, what: What, layout: Layout) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="one", store=copies, what=what, layout=layout)) as library:
        library.add(JPG, ident="cat")
        library.order(library.get("cat"), Wish(sizes=(NAMED, NAMED.replace("60x30", "80x40"))))
        assert carry_out_all(library) == []
        assert len(keys(copies)) == 3
        assert purge(library, ident="cat", size="60x*")[0] == 1
        assert [job.kind for job in library.catalog.jobs.find()] == ["replicate:one"]
        assert carry_out_all(library) == []
        assert len(keys(copies)) == 2
        assert not [key for key in keys(copies) if "60" in key]


def test_a_purge_orders_one_job_an_image_and_none_for_a_replica_that_has_nothing_of_it(tmp_path: Path) -> None:
    whats: tuple[What, ...] = ("originals", "named", "all")
    replicas = [Replica(name=what, store=MemoryStore(), what=what) for what in whats]
    with opened(tmp_path, *replicas) as library:
        for ident in ("cat", "dog"):
            library.add(JPG, ident=ident)
            for width in (20, 30, 40):
                library.variant(ident, f"{width}x", format="webp")
        assert carry_out_all(library) == []
        purge(library, everything=True)
        jobs = [(job.kind, job.ident) for job in library.catalog.jobs.find()]
        assert jobs == [("replicate:all", "cat"), ("replicate:all", "dog")]
        assert carry_out_all(library) == []
        assert [keys(replica.store) for replica in replicas] == [["cat/origin.jpg", "dog/origin.jpg"]] * 3


def test_what_was_purged_does_not_outlive_the_deletion_of_its_image(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="seed", store=copies, layout=IMAGESERVER)) as library:
        library.add(JPG, ident="cat")
        library.variant("cat", NAMED)
        assert carry_out_all(library) == []
        purge(library, ident="cat")
        library.delete("cat")  # before any of the jobs is carried out
        assert carry_out_all(library) == []
        assert keys(copies) == []


def test_what_is_purged_in_the_trash_goes_and_nothing_of_the_trash_is_put(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="seed", store=copies, layout=IMAGESERVER), undelete_s=600) as library:
        library.add(JPG, ident="cat")
        for width in (60, 80):
            library.variant("cat", NAMED.replace("60x30", f"{width}x"))
        assert carry_out_all(library) == []
        copies.delete("image/80/cat.jpg")
        library.delete("cat")
        purge(library, size="60x*")
        assert carry_out_all(library) == []
        assert keys(copies) == ["image/cat.jpg"]


def test_a_key_that_several_share_goes_to_the_next_of_them(tmp_path: Path) -> None:
    copies = MemoryStore()
    plain = "60x,fit=outside,quality=90,format=jpg"
    with opened(tmp_path, Replica(name="seed", store=copies, layout=IMAGESERVER)) as library:
        library.add(JPG, ident="cat")
        library.variant("cat", plain)
        left = library.variant("cat", NAMED).body
        assert carry_out_all(library) == []
        assert copies.get("image/60/cat.jpg") != left
        purge(library, size="60x,*")
        assert carry_out_all(library) == []
        assert copies.get("image/60/cat.jpg") == left


@pytest.mark.parametrize("verb", ["put", "delete"])
def test_a_variant_that_changes_while_it_is_brought_ends_as_the_catalog_says(tmp_path: Path, verb: str) -> None:
    """A removal overtakes the put of the same variant, and a variant made anew the removal of the last."""
    copies = MemoryStore()
    replica = Replica(name="one", store=copies, layout=IMAGESERVER)
    with opened(tmp_path, replica) as library:
        library.add(JPG, ident="cat")
        carry_out_all(library)
        library.variant("cat", NAMED)
        if verb == "delete":
            assert carry_out_all(library) == []
            purge(library, ident="cat")
        slow = a_job(library)

        class Overtaken(WrappedStore):
            def before(self, called: str, key: str) -> None:
                super().before(called, key)
                if called == verb and len([1 for each, _ in self.calls if each == verb]) == 1:
                    if verb == "put":
                        purge(library, ident="cat")
                    else:
                        library.variant("cat", NAMED)
                    other = a_job(library)
                    Replicating(library, replica).carry_out(other)
                    library.catalog.jobs.done(other)

        late = Overtaken(copies)
        Replicating(library, Replica(name="one", store=late, layout=IMAGESERVER)).carry_out(slow)
        assert verb in [called for called, _ in late.calls]
        there = {"image/cat.jpg"} if verb == "put" else {"image/cat.jpg", "image/60/cat.jpg"}
        assert set(keys(copies)) == there


def test_bounds_drop_what_was_asked_for_there_too_and_spare_what_was_named(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="cdn", store=copies, what="all"), max_variants=2) as library:
        library.add(JPG, ident="cat")
        library.order(library.get("cat"), Wish(sizes=(NAMED,)))
        assert carry_out_all(library) == []
        for width in (20, 30, 40):
            library.variant("cat", f"{width}x", format="webp")
            until(lambda width=width: f"{width}x" in stems(library))  # type: ignore[misc]
        until(lambda: len(stems(library)) == 2)
        assert stems(library) == {NAMED.removesuffix(",format=jpg"), "40x"}
        assert carry_out_all(library) == []
        assert keys(copies) == ["cat/40x.webp", "cat/60x30,fit=cover,quality=90.jpg", "cat/origin.jpg"]


def test_an_eviction_that_frees_nothing_but_what_was_named_ends(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path, Replica(name="cdn", store=copies, what="named"), max_variant_bytes=1) as library:
        library.add(JPG, ident="cat")
        library.order(library.get("cat"), Wish(sizes=(NAMED,)))
        assert carry_out_all(library) == []
        library.variant("cat", "20x", format="webp")
        assert library.shelf.evict()[0] == 1
        assert len(stems(library)) == 1
        assert library.shelf.evict() == (0, 0)


def stems(library: Library) -> set[str]:
    return {variant.stem for variant in library.catalog.variants.of("cat")}


def test_without_replicas_nothing_is_ordered(library: Library) -> None:
    library.add(JPG, ident="cat")
    library.variant("cat", NAMED)
    library.delete("cat")
    assert library.catalog.jobs.find() == []


def test_what_is_not_to_be_synced_is_not(tmp_path: Path) -> None:
    copies = MemoryStore()
    with opened(tmp_path / "library", Replica(name="one", store=copies)) as library:
        with library.incoming.new() as incoming:
            incoming.copy(JPG)
            library.add_incoming(
                incoming, ident="cat", jobs=lambda image: library.orders.wished(image.ident, Wish(sync=False))
            )
        assert library.catalog.jobs.find() == []
        library.order(library.get("cat"), Wish(), whole=True)  # POST /sync makes up for it
        assert carry_out_all(library) == []
        assert hashlib.sha256(copies.get("cat/origin.jpg")).hexdigest() == library.get("cat").sha256
