"""Originals: taken in whole or not at all, read, listed, removed."""

from __future__ import annotations

import hashlib
import io
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.engine import pictures as p
from tests.waiting import WAIT_S
from tests.watched import all_blobs

from lazypix import Library, Limits
from lazypix.catalog import Image, State
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    BadIdent,
    BadUpload,
    BrokenImage,
    IdentTaken,
    LazypixError,
    StoreFailed,
    StoreFull,
    TooLarge,
    UnknownImage,
    UnsupportedImage,
)
from lazypix.plan import Probe
from lazypix.stores.local import LocalStore

JPG = p.jpg(p.quadrants())
PNG = p.encoded(p.quadrants())


def test_an_original_is_kept_as_it_came(library: Library) -> None:
    before = datetime.now(UTC)
    image = library.add(JPG, ident="cat", filename="my cat.JPG", metadata={"who": "me"})
    assert image == library.get("cat")
    assert library.original("cat") == JPG
    assert (image.ident, image.format, image.width, image.height, image.frames) == ("cat", "jpg", 120, 80, 1)
    assert (image.size, image.sha256) == (len(JPG), hashlib.sha256(JPG).hexdigest())
    assert (image.filename, image.metadata) == ("my cat.JPG", {"who": "me"})
    assert before <= image.created <= datetime.now(UTC)
    assert all_blobs(library) == ["cat/origin.jpg"]
    path = library.original_path(image)
    assert path is not None
    assert path.read_bytes() == JPG


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "path", "text", "file"])
def test_an_original_comes_as_bytes_path_or_file(library: Library, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    sources: dict[str, Any] = {
        "bytes": PNG, "bytearray": bytearray(PNG), "memoryview": memoryview(PNG),
        "path": path, "text": str(path), "file": io.BytesIO(PNG),
    }  # fmt: skip
    image = library.add(sources[kind])
    assert library.original(image.ident) == PNG
    assert image.filename == ("cat.png" if kind in ("path", "text") else None)
    assert path.read_bytes() == PNG  # the caller's file is left alone


def test_a_name_that_is_no_unicode_does_not_matter(library: Library, tmp_path: Path) -> None:
    """Linux lets a file be called anything; Python shows such bytes as lone surrogates."""
    path = tmp_path / b"k\xe4tze.png".decode("utf-8", "surrogateescape")
    try:
        path.write_bytes(PNG)
    except OSError:
        pytest.skip("this file system wants Unicode")
    image = library.add(path)
    assert library.get(image.ident).filename is not None
    assert library.original(image.ident) == PNG


def test_metadata_are_told_as_they_will_be_read_again(library: Library) -> None:
    image = library.add(PNG, metadata={"one": (2, 3), "who": "me"})
    assert image.metadata == library.get(image.ident).metadata == {"one": [2, 3], "who": "me"}


@pytest.mark.parametrize(
    "metadata", [{"when": datetime.now(UTC)}, {"ratio": math.nan}, {(1, 2): 3}, ["me"], "me", {"a": "\ud800"}]
)
def test_metadata_that_are_no_json_object_are_refused(library: Library, metadata: Any) -> None:
    with pytest.raises(BadUpload, match="accepted: a JSON object"):
        library.add(PNG, metadata=metadata)
    assert (all_blobs(library), library.list(), library.catalog.unfinished()) == ([], [], [])


def test_idents_are_made_when_none_is_given(library: Library) -> None:
    idents = [library.add(PNG).ident for _ in range(3)]
    assert len(set(idents)) == 3
    assert all(len(ident) == 32 for ident in idents)


def test_a_deleted_image_is_gone_and_its_ident_stays_taken(library: Library) -> None:
    library.add(JPG, ident="cat")
    library.add(JPG, ident="cat2")
    library.variant("cat", "60x")
    library.delete("cat")
    assert all_blobs(library) == ["cat2/origin.jpg"]
    for verb in (library.get, library.original, library.delete, lambda ident: library.variant(ident, "60x")):
        with pytest.raises(UnknownImage) as caught:
            verb("cat")
        assert caught.value.status == 404
    assert [image.ident for image in library.list()] == ["cat2"]
    with pytest.raises(IdentTaken):
        library.add(PNG, ident="cat")
    assert all_blobs(library) == ["cat2/origin.jpg"]


def test_an_ident_is_never_given_to_other_bytes(library: Library) -> None:
    library.add(JPG, ident="cat")
    with pytest.raises(IdentTaken, match="cat is taken; existing data is never replaced"):
        library.add(PNG, ident="cat")
    assert library.original("cat") == JPG
    assert all_blobs(library) == ["cat/origin.jpg"]


def test_an_ident_whose_blob_lies_there_already_is_taken(library: Library) -> None:
    """The catalog was lost, say; the blob is not ours to replace or to remove."""
    library.store.create("cat/origin.jpg", b"somebody's")
    with pytest.raises(IdentTaken):
        library.add(JPG, ident="cat")
    assert library.store.get("cat/origin.jpg") == b"somebody's"
    with pytest.raises(UnknownImage):
        library.get("cat")


REFUSED: list[tuple[str, bytes, dict[str, str], type[LazypixError], str]] = [
    ("empty", b"", {}, BadUpload, "empty"),
    ("no image", b"hello", {}, UnsupportedImage, "Not an image"),
    ("svg", b"<svg/>", {}, UnsupportedImage, "A svg file"),
    ("truncated", JPG[:-200], {}, BrokenImage, "The jpg image"),
    ("too many pixels", p.bomb(), {}, TooLarge, "megapixels"),
    ("too many bytes", b"x" * 2_000_001, {}, TooLarge, "over the limit"),
    ("bad ident", JPG, {"ident": "../cat"}, BadIdent, "Bad ident"),
    ("empty ident", JPG, {"ident": ""}, BadIdent, "Bad ident"),
    ("taken", JPG, {"ident": "taken"}, IdentTaken, "taken"),
    ("wrong extension", JPG, {"filename": "cat.png"}, UnsupportedImage, r"\.png but is a jpg image; .*\.jpg, \.jpeg"),
    ("a program", JPG, {"filename": "cat.exe"}, UnsupportedImage, r"named \.exe"),
    ("a page", JPG, {"filename": "cat.html"}, UnsupportedImage, r"named \.html"),
]


@pytest.mark.parametrize(
    ("source", "options", "error", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, source: bytes, options: dict[str, str], error: type[LazypixError], message: str
) -> None:
    with Library.open(tmp_path, limits=Limits(max_bytes=2_000_000), engine=ThreadEngine(1)) as library:
        library.add(PNG, ident="taken")
        for given in (source, io.BytesIO(source)):
            with pytest.raises(error, match=message):
                library.add(given, ident=options.get("ident"), filename=options.get("filename"))
        assert all_blobs(library) == ["taken/origin.png"]
        assert len(library.list()) == 1
        assert library.catalog.unfinished() == []


@pytest.mark.parametrize(
    "filename", ["cat.jpg", "cat.JPEG", "cat.jpe", "cat", "cat.", ".jpg", "cat.v2", "a/b.jpg", "cat.2024-05-06", ""]
)
def test_a_name_that_says_nothing_else_is_fine(library: Library, filename: str) -> None:
    assert library.add(JPG, filename=filename).format == "jpg"


def test_a_source_that_fails_leaves_nothing(library: Library) -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ConnectionError("the client went away")
            return super().read(100)

    with pytest.raises(ConnectionError):
        library.add(Torn(JPG))
    with pytest.raises(FileNotFoundError):
        library.add(Path("/nowhere/cat.jpg"))
    assert all_blobs(library) == []


def test_a_store_that_fails_gives_the_ident_back(tmp_path: Path) -> None:
    class FullStore(LocalStore):
        full = True

        def create(self, key: str, source: bytes | Path) -> None:
            if self.full:
                raise StoreFull("No space left")
            super().create(key, source)

    store = FullStore(tmp_path / "images")
    with Library.open(tmp_path, store=store, engine=ThreadEngine(1)) as library:
        with pytest.raises(StoreFull):
            library.add(JPG, ident="cat")
        assert all_blobs(library) == []
        assert library.catalog.unfinished() == []
        store.full = False
        library.add(JPG, ident="cat")  # not taken: it was never acknowledged
        assert library.original("cat") == JPG


def test_of_many_uploads_of_one_ident_exactly_one_wins(library: Library) -> None:
    sources = [p.encoded(p.quadrants(40 + number, 40)) for number in range(8)]
    barrier = threading.Barrier(8)

    def add(source: bytes) -> Image | None:
        barrier.wait(WAIT_S)
        try:
            return library.add(source, ident="cat")
        except IdentTaken:
            return None

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(add, sources))
    winners = [source for source, image in zip(sources, results, strict=True) if image]
    assert [library.original("cat")] == winners
    assert all_blobs(library) == ["cat/origin.png"]


def test_blobs_that_the_catalog_does_not_know_are_not_taken_over(library: Library) -> None:
    """As after a catalog was lost: they may be somebody's images."""
    library.store.create("cat/w60.jpg", b"x")
    with pytest.raises(IdentTaken):
        library.add(JPG, ident="cat")
    assert all_blobs(library) == ["cat/w60.jpg"]
    assert library.catalog.unfinished() == []


def test_what_is_published_while_it_is_swept_stays(library: Library) -> None:
    """The sweeper saw a claim, and the upload ended just then."""
    probe = Probe(format="jpg", width=120, height=80)
    library.catalog.claim(Image(ident="cat", sha256="", size=len(JPG), probe=probe, created=datetime.now(UTC)))
    library.store.create("cat/origin.jpg", JPG)
    unfinished = library.catalog.unfinished

    def seen_too_early(*states: State, **options: Any) -> list[tuple[str, State]]:
        found = unfinished(*states, **options)
        if found:
            library.catalog.publish("cat")
        return found

    library.catalog.unfinished = seen_too_early  # type: ignore[method-assign]
    library.sweep(older_than_s=0)
    assert library.original("cat") == JPG


def test_an_upload_that_was_swept_away_is_not_acknowledged(library: Library) -> None:
    create = library.store.create

    def swept_meanwhile(key: str, source: bytes | Path) -> None:
        create(key, source)
        library.sweep(older_than_s=0)

    library.store.create = swept_meanwhile  # type: ignore[method-assign]
    with pytest.raises(LazypixError):
        library.add(JPG, ident="cat")
    assert [blob.key for blob in library.store.list()] == []
    with pytest.raises(UnknownImage):
        library.get("cat")


def test_an_upload_that_cannot_be_published_is_undone(library: Library) -> None:
    def fail(ident: str, claim: str | None = None, *, jobs: object = (), last: object = None) -> None:
        raise StoreFailed("The catalog is in trouble")

    publish, library.catalog.publish = library.catalog.publish, fail  # type: ignore[method-assign]
    with pytest.raises(StoreFailed):
        library.add(JPG, ident="cat")
    assert all_blobs(library) == []
    library.catalog.publish = publish  # type: ignore[method-assign]
    assert library.add(JPG, ident="cat").ident == "cat"
