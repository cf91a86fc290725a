"""Uploads in pieces: each piece is kept, and all together become an image or are gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from tests.engine.pictures import jpg, noise, quadrants
from tests.fakes.beansdb import FakeBeansdb

from lazypix import Library
from lazypix.catalog import Catalog, Image
from lazypix.catalog.upload_rows import Upload
from lazypix.engine.idle import IdleEngine
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    BadIdent,
    BadRequest,
    BadUpload,
    BrokenImage,
    Busy,
    IdentTaken,
    OffsetMismatch,
    StoreFailed,
    TooLarge,
    UnknownImage,
    UnknownUpload,
    UnsupportedImage,
    UploadGone,
)
from lazypix.keys import KeyScheme
from lazypix.orders import Wish
from lazypix.plan import Limits
from lazypix.stores.beansdb import BeansdbStore
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.cleaning import collect_garbage
from lazypix.upkeep.reindexing import reindex
from lazypix.upkeep.verifying import verify

PICTURE = jpg(noise(200, 150))
THIRD = len(PICTURE) // 3


def send(library: Library, upload: Upload, data: bytes) -> Upload:
    """Send one piece from where the upload is known to be."""
    with library.resumable.receive(upload) as piece:
        piece.write(data)
        return library.resumable.append(upload, piece, jobs=lambda image: library.orders.wished(image.ident, Wish()))


def begun(library: Library, **fields: str) -> Upload:
    return library.resumable.begin(len(PICTURE), fields=fields)


def blobs(library: Library) -> list[str]:
    return [blob.key for blob in library.store.list()]


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Library]:
    with Library.open(folder, engine=ThreadEngine(1), **options) as library:
        yield library


def test_pieces_become_an_image(library: Library) -> None:
    upload = begun(library, filename="a b.jpg", metadata='{"album": "x"}', ident="chosen")
    for start in (0, THIRD):
        upload = send(library, upload, PICTURE[start : start + THIRD])
        assert (upload.position, upload.ident) == (start + THIRD, None)
    assert len(blobs(library)) == 2
    done = send(library, upload, PICTURE[2 * THIRD :])
    assert (done.position, done.length, done.ident) == (len(PICTURE), len(PICTURE), "chosen")
    image = library.get("chosen")
    assert (image.filename, image.metadata) == ("a b.jpg", {"album": "x"})
    assert library.original("chosen") == PICTURE
    assert blobs(library) == ["chosen/origin.jpg"]
    assert library.resumable.get(upload.id).ident == "chosen"  # for a client that missed the answer
    assert not any((library._folder / "incoming").iterdir())


def test_one_piece_is_enough_and_an_empty_one_changes_nothing(library: Library) -> None:
    upload = begun(library)
    assert send(library, upload, b"") == upload
    done = send(library, upload, PICTURE)
    assert done.ident is not None
    assert library.original(done.ident) == PICTURE


def test_a_piece_has_no_more_bytes_than_are_missing(library: Library) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    with library.resumable.receive(upload) as piece, pytest.raises(TooLarge):
        piece.write(PICTURE)


@pytest.mark.parametrize("store", ["folder", "memory"])
def test_of_two_pieces_for_one_place_one_is_taken(tmp_path: Path, store: str) -> None:
    with opened(tmp_path, store=MemoryStore() if store == "memory" else None) as library:
        upload = begun(library)
        barrier = Barrier(4)

        def race(number: int) -> Upload:
            barrier.wait(30)
            return send(library, upload, PICTURE[: 100 + number])

        with ThreadPoolExecutor(4) as threads:
            results: list[Future[Upload]] = [threads.submit(race, number) for number in range(4)]
        won = [result.result() for result in results if result.exception() is None]
        assert len(won) == 1
        assert all(isinstance(e, OffsetMismatch) for r in results if (e := r.exception()) is not None)
        assert len(blobs(library)) == 1
        done = send(library, won[0], PICTURE[won[0].position :])
        assert done.ident is not None
        assert library.original(done.ident) == PICTURE


def test_of_two_last_pieces_one_makes_the_image(library: Library) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    barrier = Barrier(3)

    def race(_: int) -> Upload:
        barrier.wait(30)
        return send(library, upload, PICTURE[THIRD:])

    with ThreadPoolExecutor(3) as threads:
        results = [threads.submit(race, number) for number in range(3)]
    won = [result.result() for result in results if result.exception() is None]
    assert len(won) == 1
    assert [type(r.exception()) for r in results if r.exception() is not None] == [OffsetMismatch] * 2
    assert [image.ident for image in library.list()] == [won[0].ident]
    assert blobs(library) == [f"{won[0].ident}/origin.jpg"]


def test_what_is_no_image_is_gone(library: Library) -> None:
    for data, error in ((b"no image " * 100, UnsupportedImage), (jpg(quadrants())[:-200] + b"\0" * 200, BrokenImage)):
        upload = library.resumable.begin(len(data), fields={})
        upload = send(library, upload, data[:50])
        with pytest.raises(error):
            send(library, upload, data[50:])
        with pytest.raises(UnknownUpload):
            library.resumable.get(upload.id)
        assert blobs(library) == []


def test_what_cannot_be_taken_is_refused_at_the_beginning(tmp_path: Path) -> None:
    with opened(tmp_path, limits=Limits(max_bytes=1000)) as library:
        library.resumable.begin(1000, fields={"ident": "free"})
        with pytest.raises(TooLarge, match="1000 bytes"):
            library.resumable.begin(1001, fields={})
        with pytest.raises(BadUpload, match="empty"):
            library.resumable.begin(0, fields={})
        with pytest.raises(BadIdent):
            library.resumable.begin(10, fields={"ident": "a/b"})
        with pytest.raises(BadRequest, match="JSON object"):
            library.resumable.begin(10, fields={"metadata": "[1]"})
        for never_kept in ('{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}'):
            with pytest.raises(BadUpload, match="cannot be kept"):
                library.resumable.begin(10, fields={"metadata": never_kept})
    with opened(tmp_path) as library:
        library.add(PICTURE, ident="taken")
        with pytest.raises(IdentTaken):
            begun(library, ident="taken")


def test_an_ident_that_was_taken_meanwhile_ends_the_upload(library: Library) -> None:
    upload = send(library, begun(library, ident="wanted"), PICTURE[:THIRD])
    other = library.add(jpg(quadrants()), ident="wanted")
    with pytest.raises(IdentTaken):
        send(library, upload, PICTURE[THIRD:])
    with pytest.raises(UnknownUpload):
        library.resumable.get(upload.id)
    assert library.get("wanted") == other


def test_a_claim_that_a_killed_process_left_is_waited_for_and_then_taken_over(library: Library) -> None:
    upload = send(library, begun(library, ident="mine"), PICTURE[:THIRD])
    example = library.add(PICTURE)
    library.catalog.claim(Image(
        ident="mine", sha256=example.sha256, size=example.size, probe=example.probe, created=example.created
    ))  # fmt: skip
    library.store.create("mine/origin.jpg", PICTURE)
    with pytest.raises(Busy):
        send(library, upload, PICTURE[THIRD:])
    upload = library.resumable.get(upload.id)
    assert upload.position == len(PICTURE) - 1  # kept, but for the byte with which it is asked for again
    with closing(sqlite3.connect(library.catalog.file or "")) as connection, connection:
        connection.execute("UPDATE images SET since_us = since_us - 3600000000 WHERE ident = 'mine'")
    with pytest.raises(Busy):
        send(library, upload, PICTURE[-1:])
    assert send(library, upload, PICTURE[-1:]).ident == "mine"
    assert library.original("mine") == PICTURE


def test_what_came_is_kept_when_the_store_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, store=MemoryStore()) as library:
        upload, create = begun(library), library.store.create

        def fails_for_originals(key: str, source: bytes | Path) -> None:
            if "origin" in key:
                raise StoreFailed("away")
            create(key, source)

        monkeypatch.setattr(library.store, "create", fails_for_originals)
        with pytest.raises(StoreFailed):
            send(library, upload, PICTURE)
        monkeypatch.undo()
        upload = library.resumable.get(upload.id)
        assert (upload.position, library.list()) == (len(PICTURE) - 1, [])
        done = send(library, upload, PICTURE[-1:])
        assert library.original(done.ident or "") == PICTURE


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_piece_that_the_store_does_not_have_as_it_came_ends_the_upload(library: Library, harm: str) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    (key,) = blobs(library)
    if harm == "lost":
        library.store.delete(key)
    else:
        library.store.put(key, bytes(THIRD))
    with pytest.raises(UploadGone):
        send(library, upload, PICTURE[THIRD:])
    with pytest.raises(UnknownUpload):
        library.resumable.get(upload.id)
    assert (blobs(library), library.list()) == ([], [])


def age(library: Library, upload: Upload) -> None:
    with closing(sqlite3.connect(library.catalog.file or "")) as connection, connection:
        connection.execute("UPDATE uploads SET until_us = 1 WHERE id = ?", [upload.id])


def test_what_is_not_gone_on_with_is_thrown_away(library: Library) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    age(library, upload)
    with pytest.raises(UploadGone):
        library.resumable.get(upload.id)
    assert len(blobs(library)) == 1
    assert library.sweep() == 1
    assert blobs(library) == []
    with pytest.raises(UnknownUpload):
        library.resumable.get(upload.id)
    assert library.sweep() == 0


def test_what_became_of_an_upload_is_told_for_a_while(library: Library) -> None:
    done = send(library, begun(library), PICTURE)
    age(library, done)
    assert library.sweep() == 1
    assert library.original(done.ident or "") == PICTURE


def test_sweeping_leaves_what_is_under_way(library: Library) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    assert library.sweep(older_than_s=0) == 0
    assert send(library, upload, PICTURE[THIRD:]).ident is not None


def test_an_upload_that_was_thrown_away_takes_no_piece(library: Library) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    with library.resumable.receive(upload) as piece, library.resumable.receive(upload) as rest:
        piece.write(PICTURE[THIRD : 2 * THIRD])
        rest.write(PICTURE[THIRD:])
        assert library.resumable.end(upload.id)
        for late in (piece, rest):
            with pytest.raises(UnknownUpload):
                library.resumable.append(upload, late, jobs=lambda _: ())
    assert not library.resumable.end(upload.id)
    assert (blobs(library), library.list()) == ([], [])


@pytest.mark.parametrize(
    "scheme", [KeyScheme(), KeyScheme(prefix="img/", shard=2), KeyScheme(prefix="upload.parts/")]
)
def test_pieces_are_nobodys_images(tmp_path: Path, scheme: KeyScheme) -> None:
    with opened(tmp_path, keys=scheme) as library:
        kept = library.add(PICTURE, ident="0" * 32)
        upload = send(library, begun(library), PICTURE[:THIRD])
        orphan = f"{scheme.parts('ab' * 16)}{0:020d}-00000000"
        library.store.create(orphan, b"left")
        assert [(p.kind, p.key) for p in verify(library)] == [("unknown piece", orphan)]
        assert reindex(library).added == 0
        assert not collect_garbage(library, remove=True, originals=True).blobs  # young: it may be under way
        found = collect_garbage(library, remove=True, originals=True, older_than_s=-1)
        assert [p.key for p in found.blobs] == [orphan]
        assert send(library, upload, PICTURE[THIRD:]).ident is not None
        assert library.original(kept.ident) == PICTURE
        assert list(verify(library)) == []


def test_an_image_may_be_called_like_the_place_of_the_pieces(library: Library) -> None:
    upload = send(library, begun(library), PICTURE[:THIRD])
    with pytest.raises(BadIdent):
        library.add(PICTURE, ident="upload.parts")
    assert send(library, upload, PICTURE[THIRD:]).ident is not None


def test_a_store_that_cannot_list_keeps_pieces_too(tmp_path: Path) -> None:
    with (
        FakeBeansdb() as beansdb,
        opened(tmp_path, store=BeansdbStore([beansdb.address], timeout_s=20)) as library,
    ):
        upload = send(library, begun(library, ident="beans"), PICTURE[:THIRD])
        gone = send(library, begun(library), PICTURE[:THIRD])
        assert send(library, upload, PICTURE[THIRD:]).ident == "beans"
        assert library.resumable.end(gone.id)
        assert blobs(library) == ["beans/origin.jpg"]
        assert library.original("beans") == PICTURE


def test_another_process_goes_on_after_the_first_was_killed(tmp_path: Path) -> None:
    """What is in the store and the catalog is all there is to an upload: no process need live on."""
    catalog, store = f"sqlite:///{tmp_path / 'catalog.sqlite'}", f"file://{tmp_path / 'store'}"
    with Library.open(tmp_path / "one", catalog=catalog, store=store, engine=IdleEngine()) as one:
        upload = send(one, begun(one, ident="moved"), PICTURE[:THIRD])
    with opened(tmp_path / "two", catalog=catalog, store=store) as two:
        done = send(two, two.resumable.get(upload.id), PICTURE[THIRD:])
        assert done.ident == "moved"
        assert two.original("moved") == PICTURE


def test_publishing_is_undone_when_the_upload_went_on_without_it(library: Library) -> None:
    upload = begun(library, ident="late")
    with library.resumable.receive(upload) as piece:
        piece.write(PICTURE)
        send(library, upload, PICTURE[:THIRD])
        with pytest.raises(OffsetMismatch):
            library.resumable.append(upload, piece, jobs=lambda _: ())
    with pytest.raises(UnknownImage):
        library.get("late")
    assert Catalog.states(library.catalog, ["late"]) == {}
