"""The main job: originals in, variants out, and nothing left over when something goes wrong."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.engine import pictures as p
from tests.waiting import until

from lazypix import Library, Limits
from lazypix.catalog import Image, State
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    BadIdent,
    BadTransform,
    BadUpload,
    BrokenImage,
    Busy,
    IdentTaken,
    LazypixError,
    Quarantined,
    RendererLost,
    RenderFailed,
    StoreFailed,
    StoreFull,
    TooLarge,
    UnknownImage,
    UnsupportedImage,
)
from lazypix.keys import KeyScheme
from lazypix.lease import Flight
from lazypix.plan import Plan, Probe
from lazypix.stores.local import LocalStore
from lazypix.transform import Transform
from lazypix.variants import Variant

WAIT_S = 60.0
JPG = p.jpg(p.quadrants())
PNG = p.encoded(p.quadrants())


class WatchedEngine:
    """An engine in threads that counts, and does `before` and `after` around each rendering."""

    def __init__(self) -> None:
        self.rendered: list[Plan] = []
        self.before: Callable[[], None] = lambda: None
        self.check: Callable[[Plan], None] = lambda _: None
        self._threads = ThreadEngine(4)
        self._pool = ThreadPoolExecutor(8)

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        return self._threads.inspect(path, limits)

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        self.rendered.append(plan)

        def work() -> bytes:
            self.before()
            self.check(plan)
            return self._threads.render(path, plan).result(WAIT_S)

        return self._pool.submit(work)

    def close(self) -> None:
        self._pool.shutdown()
        self._threads.close()


@pytest.fixture
def watched() -> WatchedEngine:
    return WatchedEngine()  # closed by its library


@pytest.fixture
def watching(tmp_path: Path, watched: WatchedEngine) -> Iterator[Library]:
    with Library.open(tmp_path / "library", engine=watched) as opened:
        yield opened


def _files(library: Library) -> list[str]:
    """Return all blobs, and whatever lies where nothing should be left."""
    assert isinstance(library.store, LocalStore)
    root = library.store.root.parent
    assert list((root / "incoming").iterdir()) == []
    assert [path for folder in (".tmp", ".deleted") for path in (library.store.root / folder).iterdir()] == []
    return [blob.key for blob in library.store.list()]


# --- originals -------------------------------------------------------------------------------------------------


def test_an_original_is_kept_as_it_came(library: Library) -> None:
    before = datetime.now(UTC)
    image = library.add(JPG, ident="cat", filename="my cat.JPG", metadata={"who": "me"})
    assert image == library.get("cat")
    assert library.original("cat") == JPG
    assert (image.ident, image.format, image.width, image.height, image.frames) == ("cat", "jpg", 120, 80, 1)
    assert (image.size, image.sha256) == (len(JPG), hashlib.sha256(JPG).hexdigest())
    assert (image.filename, image.metadata) == ("my cat.JPG", {"who": "me"})
    assert before <= image.created <= datetime.now(UTC)
    assert _files(library) == ["cat/origin.jpg"]
    path = library.original_path(image)
    assert path is not None
    assert path.read_bytes() == JPG


@pytest.mark.parametrize("kind", ["bytes", "path", "text", "file"])
def test_an_original_comes_as_bytes_path_or_file(library: Library, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    sources = {"bytes": PNG, "path": path, "text": str(path), "file": io.BytesIO(PNG)}
    image = library.add(sources[kind])  # type: ignore[arg-type]
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


def test_idents_are_made_when_none_is_given(library: Library) -> None:
    idents = [library.add(PNG).ident for _ in range(3)]
    assert len(set(idents)) == 3
    assert all(len(ident) == 32 for ident in idents)


def test_images_are_listed_newest_first(library: Library) -> None:
    idents = [library.add(PNG, ident=f"i{number}").ident for number in range(5)]
    assert [image.ident for image in library.list()] == idents[::-1]
    assert [image.ident for image in library.list(limit=2)] == ["i4", "i3"]
    assert [image.ident for image in library.list(limit=2, before="i3")] == ["i2", "i1"]


def test_keys_are_spelled_as_the_scheme_says(tmp_path: Path) -> None:
    with Library.open(tmp_path, keys=KeyScheme(prefix="img/", shard=2), engine=ThreadEngine(1)) as library:
        library.add(PNG, ident="cat")
        library.variant("cat", "60x")
        assert _files(library) == ["img/at/cat/60x.png", "img/at/cat/origin.png"]
        library.delete("cat")
        assert _files(library) == []


def test_a_deleted_image_is_gone_and_its_ident_stays_taken(library: Library) -> None:
    library.add(JPG, ident="cat")
    library.add(JPG, ident="cat2")
    library.variant("cat", "60x")
    library.delete("cat")
    assert _files(library) == ["cat2/origin.jpg"]
    for verb in (library.get, library.original, library.delete, lambda ident: library.variant(ident, "60x")):
        with pytest.raises(UnknownImage) as caught:
            verb("cat")
        assert caught.value.status == 404
    assert [image.ident for image in library.list()] == ["cat2"]
    with pytest.raises(IdentTaken):
        library.add(PNG, ident="cat")
    assert _files(library) == ["cat2/origin.jpg"]


def test_an_ident_is_never_given_to_other_bytes(library: Library) -> None:
    library.add(JPG, ident="cat")
    with pytest.raises(IdentTaken, match="cat is taken; existing data is never replaced"):
        library.add(PNG, ident="cat")
    assert library.original("cat") == JPG
    assert _files(library) == ["cat/origin.jpg"]


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
        assert _files(library) == ["taken/origin.png"]
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
    assert _files(library) == []


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
        assert _files(library) == []
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
    assert _files(library) == ["cat/origin.png"]


# --- variants --------------------------------------------------------------------------------------------------


def test_a_variant_is_made_once_and_then_stored(watching: Library, watched: WatchedEngine) -> None:
    watching.add(JPG, ident="cat")
    made = watching.variant("cat", "60x")
    stored = watching.variant("cat", Transform(width=60))
    assert p.opened(made.body).size == (60, 40)
    assert made.body == stored.body == watching.store.get("cat/60x.jpg")
    assert len(watched.rendered) == 1
    assert [name for name, _ in made.timings_ms] == ["wait", "render"]
    assert stored.timings_ms == ()
    assert made.media_type == "image/jpeg"
    assert [(v.stem, v.format, v.size) for v in watching.variants("cat")] == [("60x", "jpg", len(made.body))]


def test_different_texts_of_one_meaning_are_one_variant(watching: Library, watched: WatchedEngine) -> None:
    watching.add(JPG, ident="cat")
    for text in ("60x", "width=60", "060x,dpr=1", "60x,format=jpeg"):
        watching.variant("cat", text)
    assert len(watched.rendered) == 1


def test_a_variant_survives_the_library(tmp_path: Path) -> None:
    engines = [WatchedEngine(), WatchedEngine()]
    bodies = []
    for engine in engines:
        with Library.open(tmp_path, engine=engine) as library:
            if engine is engines[0]:
                library.add(JPG, ident="cat")
            bodies.append(library.variant("cat", "60x").body)
    assert bodies[0] == bodies[1]
    assert [len(engine.rendered) for engine in engines] == [1, 0]


@pytest.mark.parametrize(
    ("source", "text", "asked", "made"),
    [
        (JPG, "60x", None, "jpg"),
        (JPG, "60x", "webp", "webp"),
        (JPG, "60x", "jpeg", "jpg"),
        (JPG, "60x,format=png", None, "png"),
        (JPG, "60x,lossless=true", None, "png"),
        (PNG, "60x", None, "png"),
        (p.encoded(p.see_through()), "20x", None, "png"),
        (p.encoded(p.quadrants(), "webp"), "60x,lossless=true", None, "webp"),
        (p.encoded(p.quadrants(), "tiff"), "60x", None, "jpg"),
        (p.encoded(p.see_through(), "tiff"), "20x", None, "png"),
        (p.film([p.RED, p.BLUE]), "20x", None, "gif"),
        (PNG, "60x,quality=50", None, "png"),
    ],
)
def test_the_format_of_a_variant(library: Library, source: bytes, text: str, asked: str | None, made: str) -> None:
    library.add(source, ident="cat")
    variant = library.variant("cat", text, format=asked)
    assert variant.transform.format == made
    assert p.opened(variant.body).format == {"jpg": "JPEG"}.get(made, made.upper())


@pytest.mark.parametrize(
    ("ident", "text", "error"),
    [
        ("nobody", "60x", UnknownImage),
        ("../cat", "60x", BadIdent),
        ("cat", "60", BadTransform),
        ("cat", "9000x", BadTransform),
        ("cat", "crop=500:500:1:1", BadTransform),
        ("cat", "lossless=true,format=jpg", BadTransform),
    ],
)
def test_a_variant_that_cannot_be_is_refused(
    watching: Library, watched: WatchedEngine, ident: str, text: str, error: type[LazypixError]
) -> None:
    watching.add(JPG, ident="cat")
    with pytest.raises(error):
        watching.variant(ident, text)
    assert watched.rendered == []
    assert _files(watching) == ["cat/origin.jpg"]


def test_many_who_ask_at_once_cost_one_rendering(watching: Library, watched: WatchedEngine) -> None:
    watching.add(JPG, ident="cat")
    barrier = threading.Barrier(50)

    def ask() -> bytes:
        barrier.wait(WAIT_S)
        return watching.variant("cat", "60x").body

    with ThreadPoolExecutor(50) as pool:
        bodies = {asked.result(WAIT_S) for asked in [pool.submit(ask) for _ in range(50)]}
    assert len(bodies) == 1
    assert len(watched.rendered) == 1


def test_two_libraries_on_one_folder_render_once(tmp_path: Path) -> None:
    engines = [WatchedEngine(), WatchedEngine()]
    barrier = threading.Barrier(16)
    libraries = [Library.open(tmp_path, engine=engine) for engine in engines]
    try:
        libraries[0].add(JPG, ident="cat")

        def ask(number: int) -> bytes:
            barrier.wait(WAIT_S)
            return libraries[number % 2].variant("cat", "60x").body

        with ThreadPoolExecutor(16) as pool:
            assert len(set(pool.map(ask, range(16)))) == 1
        assert sum(len(engine.rendered) for engine in engines) == 1
    finally:
        for library in libraries:
            library.close()


def test_a_full_queue_is_busy(tmp_path: Path, watched: WatchedEngine) -> None:
    go = threading.Event()
    watched.before = lambda: _wait(go)
    with Library.open(tmp_path, engine=watched, queue=2) as library:
        image = library.add(JPG, ident="cat")
        making = [library.make(image, Transform(width=width, format="jpg")) for width in (10, 20)]
        with pytest.raises(Busy):
            library.variant("cat", "30x")
        go.set()
        assert [p.opened(_made(each).body).width for each in making] == [10, 20]
        assert p.opened(library.variant("cat", "30x").body).width == 30


def test_a_variant_that_cannot_be_stored_is_answered_all_the_same(tmp_path: Path) -> None:
    class FullStore(LocalStore):
        def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
            raise StoreFull("No space left")

    with Library.open(tmp_path, store=FullStore(tmp_path / "images"), engine=ThreadEngine(1)) as library:
        library.add(JPG, ident="cat")
        assert p.opened(library.variant("cat", "60x").body).size == (60, 40)
        assert _files(library) == ["cat/origin.jpg"]


def test_an_image_that_costs_renderers_their_lives_is_quarantined(watching: Library, watched: WatchedEngine) -> None:
    watching.add(JPG, ident="bad")
    watching.add(JPG, ident="good")

    def die() -> None:
        raise RendererLost("The renderer died of this image")

    watched.before = die
    for strikes, text in enumerate(("60x", "50x"), start=1):
        with pytest.raises(RendererLost):
            watching.variant("bad", text)
        until(lambda: watching.get("bad").strikes == strikes)  # noqa: B023
    watched.before = lambda: None
    watched.rendered.clear()
    with pytest.raises(Quarantined, match="bad cost 2 renderers"):
        watching.variant("bad", "40x")
    assert watched.rendered == []
    assert p.opened(watching.variant("good", "60x").body).size == (60, 40)
    assert watching.original("bad") == JPG  # the original can still be had


def test_a_heavy_variant_does_not_have_its_image_quarantined(watching: Library, watched: WatchedEngine) -> None:
    watching.add(JPG, ident="cat")

    def die_of_large_ones(plan: Plan) -> None:
        if plan.width > 16:
            raise RendererLost("The image needs more memory than is allowed")

    watched.check = die_of_large_ones
    for width in (50, 60, 70):
        with pytest.raises(RendererLost):
            watching.variant("cat", f"{width}x")
        until(lambda: [plan.width for plan in watched.rendered] == [width, 16])  # noqa: B023
        with pytest.raises(RendererLost):  # remembered: it would cost the next renderer
            watching.variant("cat", f"{width}x")
        assert len(watched.rendered) == 2
        watched.rendered.clear()
    assert p.opened(watching.variant("cat", "16x").body).size == (16, 11)
    assert watching.get("cat").strikes == 0


def test_an_error_is_not_kept(watching: Library, watched: WatchedEngine) -> None:
    watching.add(JPG, ident="cat")

    def break_down() -> None:
        raise RenderFailed("not today")

    watched.before = break_down
    with pytest.raises(RenderFailed):
        watching.variant("cat", "60x")
    watched.before = lambda: None
    assert p.opened(watching.variant("cat", "60x").body).size == (60, 40)
    assert watching.get("cat").strikes == 0


def test_deleting_while_a_variant_is_made_leaves_no_blob(watching: Library, watched: WatchedEngine) -> None:
    image = watching.add(JPG, ident="cat")
    rendering, deleted = threading.Event(), threading.Event()
    original = watching.original_path(image)
    assert original is not None
    watched.before = lambda: _signal_and_wait(rendering, deleted)
    body = original.read_bytes()
    making = watching.make(image, Transform(width=60, format="jpg"))
    _wait(rendering)
    watching.delete("cat")
    original.parent.mkdir()
    original.write_bytes(body)  # as if the renderer had opened it before
    deleted.set()
    assert p.opened(_made(making).body).size == (60, 40)
    until(lambda: _files(watching) == [])
    assert watching.catalog.variants("cat") == []


def test_deleting_before_the_original_is_read_is_an_error_and_leaves_no_blob(
    watching: Library, watched: WatchedEngine
) -> None:
    image = watching.add(JPG, ident="cat")
    rendering, deleted = threading.Event(), threading.Event()
    watched.before = lambda: _signal_and_wait(rendering, deleted)
    making = watching.make(image, Transform(width=60, format="jpg"))
    _wait(rendering)
    watching.delete("cat")
    deleted.set()
    with pytest.raises(LazypixError):
        _made(making)
    assert _files(watching) == []


def test_closing_finishes_what_is_being_made_and_leaves_nobody_waiting(
    tmp_path: Path, watched: WatchedEngine
) -> None:
    go = threading.Event()
    watched.before = lambda: _wait(go)
    library = Library.open(tmp_path, engine=watched)
    image = library.add(JPG, ident="cat")
    making = [library.make(image, Transform(width=width, format="jpg")) for width in range(10, 60)]
    closing = threading.Thread(target=library.close)
    closing.start()
    go.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    finished = [_outcome(each) for each in making]
    assert "made" in finished
    assert set(finished) <= {"made", "busy"}


def _made(making: Flight[Variant]) -> Variant:
    """Wait until the variant is stored too."""
    making.landed.result(WAIT_S)
    return making.delivered.result(0)


def _outcome(making: Flight[Variant]) -> str:
    try:
        making.delivered.result(2)
    except Busy:
        return "busy"
    return "made"


def _signal_and_wait(come: threading.Event, go: threading.Event) -> None:
    come.set()
    _wait(go)


def _wait(event: threading.Event) -> None:
    assert event.wait(WAIT_S)


# --- addresses -------------------------------------------------------------------------------------------------


def test_urls(tmp_path: Path) -> None:
    with Library.open(tmp_path, base_url="https://img.example/", engine=ThreadEngine(1)) as library:
        assert library.url("cat") == "https://img.example/image/cat.auto"
        assert library.url("cat", "200x100,fit=cover") == "https://img.example/image/200x100,fit=cover/cat.auto"
        assert library.url("cat", Transform(width=60), format="webp") == "https://img.example/image/60x/cat.webp"
        with pytest.raises(BadIdent):
            library.url("../cat")
        with pytest.raises(BadTransform):
            library.url("cat", "60")


# --- upkeep ----------------------------------------------------------------------------------------------------

CRASH = """
import os, sys
from lazypix import Library
from lazypix.stores.local import LocalStore

step, folder = sys.argv[1:]
data = sys.stdin.buffer.read()
library = Library.open(folder)
library.add(data, ident="whole")
die = lambda *_, **__: os._exit(9)
if step == "received":
    library.engine.inspect = die
if step == "claimed":
    library.store.create = die
if step == "stored":
    library.catalog.publish = die
if step == "deleting":
    library.add(data, ident="cat")
    library.variant("cat", "20x")
    library.store.delete_prefix = die
    library.delete("cat")
if step == "deleted":
    library.add(data, ident="cat")
    library.catalog.end_delete = die
    library.delete("cat")
library.add(data, ident="cat")
"""


@pytest.mark.parametrize("step", ["received", "claimed", "stored", "deleting", "deleted"])
def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path: Path, step: str) -> None:
    command = [sys.executable, "-c", CRASH, step, str(tmp_path)]
    done = subprocess.run(command, input=JPG, capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 9, done.stderr
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        assert _files(library) == ["whole/origin.jpg"]
        assert library.catalog.unfinished() == []
        assert [image.ident for image in library.list()] == ["whole"]
        if step in ("deleting", "deleted"):
            with pytest.raises(IdentTaken):
                library.add(JPG, ident="cat")
        else:
            assert library.add(JPG, ident="cat").ident == "cat"  # never acknowledged, so never taken


def test_blobs_that_the_catalog_does_not_know_are_not_taken_over(library: Library) -> None:
    """As after a catalog was lost: they may be somebody's images."""
    library.store.create("cat/w60.jpg", b"x")
    with pytest.raises(IdentTaken):
        library.add(JPG, ident="cat")
    assert _files(library) == ["cat/w60.jpg"]
    assert library.catalog.unfinished() == []


def test_what_is_published_while_it_is_swept_stays(library: Library) -> None:
    """The sweeper saw a claim, and the upload ended just then."""
    probe = Probe(format="jpg", width=120, height=80)
    library.catalog.claim(Image(ident="cat", sha256="", size=len(JPG), probe=probe, created=datetime.now(UTC)))
    library.store.create("cat/origin.jpg", JPG)
    unfinished = library.catalog.unfinished

    def seen_too_early(*, older_than_s: float = 0) -> list[tuple[str, State]]:
        found = unfinished(older_than_s=older_than_s)
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
    def fail(ident: str) -> None:
        raise StoreFailed("The catalog is in trouble")

    publish, library.catalog.publish = library.catalog.publish, fail  # type: ignore[method-assign]
    with pytest.raises(StoreFailed):
        library.add(JPG, ident="cat")
    assert _files(library) == []
    library.catalog.publish = publish  # type: ignore[method-assign]
    assert library.add(JPG, ident="cat").ident == "cat"


def test_nothing_is_swept_while_another_process_is_at_work(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1)) as first:
        with first.incoming.new() as incoming:
            incoming.write(b"half")
            with Library.open(tmp_path, engine=ThreadEngine(1)):
                assert incoming.path.exists()
            assert first.sweep() == 0  # younger than an hour
            assert incoming.path.exists()
        assert _files(first) == []


def test_sweep_counts_what_it_removes(library: Library) -> None:
    incoming = library.incoming.new()
    incoming.write(b"half")
    incoming.finish()
    probe = Probe(format="jpg", width=1, height=1)
    library.catalog.claim(Image(ident="half", sha256="", size=0, probe=probe, created=datetime.now(UTC)))
    library.store.create("half/origin.jpg", b"x")
    assert library.sweep() == 0
    assert library.sweep(older_than_s=0) == 2
    assert _files(library) == []


def test_a_library_is_asked_for_a_sign_of_life(library: Library) -> None:
    library.check()
