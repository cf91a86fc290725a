"""Variants: made once however many ask, stored, and nothing left over when something goes wrong."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.engine import pictures as p
from tests.waiting import WAIT_S, signal_and_wait, until, wait
from tests.watched import WatchedEngine, all_blobs

from lazypix import Library
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    BadIdent,
    BadTransform,
    Busy,
    LazypixError,
    Quarantined,
    RendererLost,
    RenderFailed,
    StoreFull,
    UnknownImage,
)
from lazypix.lease.flight import Flight
from lazypix.plan import Plan
from lazypix.stores.local import LocalStore
from lazypix.transform import Transform
from lazypix.variants import Variant

JPG = p.jpg(p.quadrants())
PNG = p.encoded(p.quadrants())


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


def test_a_variant_that_nobody_keeps_is_made_once_for_all_who_ask_and_leaves_nothing(
    watching: Library, watched: WatchedEngine
) -> None:
    image, wanted = watching.add(JPG, ident="cat"), Transform(width=60, format="jpg")
    come, go = threading.Event(), threading.Event()
    watched.before = lambda: signal_and_wait(come, go)
    one = watching.make(image, wanted, keeps=False)
    wait(come)
    other = watching.make(image, wanted, keeps=False)
    go.set()
    assert one.delivered.result(WAIT_S) is other.delivered.result(WAIT_S)
    one.landed.result(WAIT_S)
    assert len(watched.rendered) == 1
    assert all_blobs(watching) == ["cat/origin.jpg"]
    assert watching.variants("cat") == []
    assert watching.variant("cat", wanted).body == one.delivered.result().body


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
    assert all_blobs(watching) == ["cat/origin.jpg"]


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
    watched.before = lambda: wait(go)
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
        assert all_blobs(library) == ["cat/origin.jpg"]


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
    watched.before = lambda: signal_and_wait(rendering, deleted)
    body = original.read_bytes()
    making = watching.make(image, Transform(width=60, format="jpg"))
    wait(rendering)
    watching.delete("cat")
    original.parent.mkdir()
    original.write_bytes(body)  # as if the renderer had opened it before
    deleted.set()
    assert p.opened(_made(making).body).size == (60, 40)
    assert all_blobs(watching) == ["cat/origin.jpg"], "the variant was not stored"
    assert watching.catalog.variants.of("cat") == []
    watching.sweep(older_than_s=0)  # looks through what was deleted once more
    assert all_blobs(watching) == []
    assert watching.catalog.states(["cat"]) == {"cat": "gone"}


def test_deleting_before_the_original_is_read_is_an_error_and_leaves_no_blob(
    watching: Library, watched: WatchedEngine
) -> None:
    image = watching.add(JPG, ident="cat")
    rendering, deleted = threading.Event(), threading.Event()
    watched.before = lambda: signal_and_wait(rendering, deleted)
    making = watching.make(image, Transform(width=60, format="jpg"))
    wait(rendering)
    watching.delete("cat")
    deleted.set()
    with pytest.raises(LazypixError):
        _made(making)
    assert all_blobs(watching) == []


def _made(making: Flight[Variant]) -> Variant:
    """Wait until the variant is stored too."""
    making.landed.result(WAIT_S)
    return making.delivered.result(0)


def test_closing_does_not_wait_for_what_another_process_makes(tmp_path: Path, watched: WatchedEngine) -> None:
    with Library.open(tmp_path, engine=watched, patience_s=600) as library:
        image = library.add(JPG, ident="cat")
        wanted = Transform(width=60, format="jpg")
        with library.locks.hold(library.shelf.key("cat", wanted), patience_s=0):
            waits = library.make(image, wanted)
            library.close()
            with pytest.raises(Busy):
                waits.delivered.result(0)
    assert watched.rendered == []
