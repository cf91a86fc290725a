"""From a request to an answer, without a server: what is cached, negotiated, named and told."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image as Picture
from tests.engine.pictures import encoded, film, jpg, noise, quadrants, see_through
from tests.wrapped import WrappedStore

from lazypix import Library, Limits, Transform
from lazypix.catalog import Image
from lazypix.delivery import Delivery, filename
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import UnknownImage
from lazypix.http import Answer, FileBody, Request
from lazypix.negotiation import choose_format
from lazypix.plan import Probe
from lazypix.stores.local import LocalStore

CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
OLD = "image/webp,image/*;q=0.8"


def get(path: str, query: str = "", **headers: str) -> Request:
    return Request(method="GET", path=path, query=query, **headers)


def remembering(library: Library) -> Delivery:
    """A delivery whose memory keeps answers for as long as a test may take."""
    return Delivery(library, cache_ttl_s=600)


def header(answer: Answer, name: str) -> str:
    return dict(answer.headers)[name.encode()].decode()


def size_of(answer: Answer) -> tuple[int, int]:
    assert isinstance(answer.body, bytes)
    return Picture.open(io.BytesIO(answer.body)).size


def test_a_new_variant_is_made_then_stored_then_cached(library: Library) -> None:
    library.add(jpg(quadrants(120, 80)), ident="pic")
    delivery = remembering(library)
    request = get("/image/60x/pic.webp")
    assert delivery.cached(request) is None
    made = delivery.answer(request)
    assert "render;dur=" in header(made, "server-timing")
    assert size_of(made) == (60, 40)
    hit = delivery.cached(request)
    assert hit is not None
    assert header(hit, "server-timing") == "cache;desc=hit"
    library.variant("pic", "60x", format="webp")  # returns when it is stored
    stored = Delivery(library).answer(request)
    assert header(stored, "server-timing") == "store;desc=hit"
    assert hit.body == made.body == stored.body
    assert header(hit, "etag") == header(made, "etag") == header(stored, "etag")


def test_a_hit_asks_neither_store_nor_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = WrappedStore(LocalStore(tmp_path / "images"))
    with Library.open(tmp_path, store=counting, engine=ThreadEngine(1)) as library:
        library.add(jpg(quadrants()), ident="pic")
        for wanted in ("60x.jpg", "60x.avif"):
            library.variant("pic", wanted[:3], format=wanted[4:])  # returns when it is stored
        delivery = remembering(library)
        for request in (get("/image/60x/pic.jpg"), get("/image/60x/pic", accept=CHROME)):
            before = len(counting.calls)
            delivery.answer(request)
            assert len(counting.calls) > before
        before = len(counting.calls)
        monkeypatch.setattr(library.catalog, "get", None)
        for request in (get("/image/60x/pic.jpg"), get("/image/60x/pic", accept=CHROME)):
            assert delivery.answer(request).status == 200
            tag = header(delivery.answer(request), "etag")
            assert delivery.answer(replace(request, if_none_match=tag)).status == 304
            assert delivery.answer(replace(request, range="bytes=0-1")).status == 206
            assert delivery.answer(replace(request, method="HEAD")).body == b""
        assert len(counting.calls) == before


def test_if_none_match_is_answered_before_any_work(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    tag = header(Delivery(library).answer(get("/image/60x/pic.jpg")), "etag")
    library.variant("pic", "60x", format="jpg")  # returns when it is stored
    library.store.delete("pic/60x.jpg")
    fresh = Delivery(library)
    assert fresh.answer(get("/image/60x/pic.jpg", if_none_match=tag)).status == 304
    assert [blob.key for blob in library.store.list()] == ["pic/origin.jpg"]


def test_a_client_that_revalidates_is_answered_from_memory(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    tag = header(Delivery(library).answer(get("/image/60x/pic.jpg")), "etag")
    fresh = remembering(library)  # as after the answers became too old: the image itself is not in memory
    again = get("/image/60x/pic.jpg", if_none_match=tag)
    assert fresh.cached(again) is None
    assert fresh.answer(again).status == 304
    known = fresh.cached(again)
    assert known is not None
    assert known == fresh.answer(again)
    for other in (
        replace(again, if_none_match='"other"'),
        replace(again, if_none_match=None),
        replace(again, if_match='"other"'),
        replace(again, query="dpr=2"),
        replace(again, path="/image/61x/pic.jpg"),
    ):
        assert fresh.cached(other) is None, other
    library.delete("pic")
    assert fresh.cached(again) is None


def test_a_negotiated_not_modified_is_for_clients_that_take_the_same(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    fresh = Delivery(library)
    tag = header(fresh.answer(get("/image/60x/pic.auto", accept=CHROME)), "etag")
    fresh = Delivery(library)
    assert fresh.answer(get("/image/60x/pic.auto", accept=CHROME, if_none_match=tag)).status == 304
    assert fresh.answer(get("/image/60x/pic.auto", accept=OLD, if_none_match=tag)).status == 200


def test_answers_that_depend_on_accept_are_kept_apart(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    delivery = Delivery(library)
    for _ in range(2):
        for accept, media_type in (
            (CHROME, "image/avif"),
            (OLD, "image/webp"),
            ("*/*", "image/jpeg"),
            (None, "image/jpeg"),
        ):
            answer = delivery.answer(Request(method="GET", path="/image/40x/pic.auto", accept=accept))
            assert header(answer, "content-type") == media_type
            assert header(answer, "vary") == "accept"
    assert b"vary" not in dict(delivery.answer(get("/image/40x/pic.jpg")).headers)


def test_entries_age_and_can_be_forgotten(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    library.add(jpg(quadrants()), ident="other")
    request, other = get("/image/60x/pic.jpg"), get("/image/60x/other.jpg")
    aged = Delivery(library, cache_ttl_s=-1)
    aged.answer(request)
    assert aged.cached(request) is None
    delivery = remembering(library)
    delivery.answer(request)
    delivery.answer(other)
    library.delete("pic")
    assert delivery.cached(request) is None
    assert delivery.cached(other) is not None


def test_the_whole_image_is_the_original_when_the_format_is_its_own(library: Library) -> None:
    original = jpg(quadrants())
    library.add(original, ident="pic")
    delivery = Delivery(library)
    assert delivery.answer(get("/image/pic.jpg")).body == original
    assert delivery.answer(get("/image/pic.jpeg")).body == original
    assert delivery.answer(get("/image/pic", accept="image/jpeg")).body == original
    assert header(delivery.answer(get("/image/pic.webp")), "content-type") == "image/webp"


def test_a_tiff_can_be_had_as_it_came_and_only_so(library: Library) -> None:
    original = encoded(quadrants(), "tiff")
    library.add(original, ident="scan")
    delivery = Delivery(library)
    assert delivery.answer(get("/image/scan.tif")).body == original
    assert delivery.answer(get("/image/10x/scan.tiff")).status == 400
    library.add(jpg(quadrants()), ident="photo")
    assert delivery.answer(get("/image/photo.tiff")).status == 404


def test_a_large_original_is_sent_from_its_file(library: Library) -> None:
    original = encoded(noise(800, 600))
    assert len(original) > 1024 * 1024
    library.add(original, ident="large")
    delivery = Delivery(library)
    answer = delivery.answer(get("/image/large.png", range="bytes=100-199"))
    assert answer.status == 206
    assert answer.body == FileBody(path=library.store.local_path("large/origin.png") or Path(), start=100, length=100)
    assert delivery.cached(get("/image/large.png")) is None


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/image/none.jpg", "", 404),
        ("/image/10x10,fit=round/pic.jpg", "", 400),
        ("/image/9000x/pic.jpg", "", 400),
        ("/image/9000x/none.jpg", "", 400),
        ("/image/pic.jpg", "width=%FF", 400),
        ("/image/pic.jpg", "&".join(f"a{n}=1" for n in range(60)), 400),
        ("/elsewhere/pic.jpg", "", 404),
    ],
)
def test_errors_become_answers(library: Library, path: str, query: str, status: int) -> None:
    library.add(jpg(quadrants()), ident="pic")
    answer = Delivery(library).answer(get(path, query))
    assert answer.status == status
    assert isinstance(answer.body, bytes)
    assert answer.body.startswith(b'{"status": "error", "content": ')


def image(*, alpha: bool = False, frames: int = 1, name: str | None = None) -> Image:
    probe = Probe(format="png", width=10, height=10, alpha=alpha, frames=frames)
    return Image(ident="x", sha256="", size=1, probe=probe, created=datetime.now(UTC), filename=name)


@pytest.mark.parametrize(
    ("ranked", "alpha", "frames", "transform", "chosen"),
    [
        (("avif", "webp", "jpg", "png", "gif"), False, 1, "10x", "avif"),
        (("webp", "jpg", "png", "gif"), False, 1, "10x", "webp"),
        (("jpg", "png", "gif"), False, 1, "10x", "jpg"),
        (("png", "jpg", "gif"), False, 1, "10x", "jpg"),
        ((), False, 1, "10x", "jpg"),
        (("jpg", "png", "gif"), True, 1, "10x", "png"),
        (("jpg", "png", "gif"), True, 1, "10x,background=fff", "jpg"),
        (("webp", "avif"), True, 1, "10x", "webp"),
        (("avif", "webp", "jpg", "png", "gif"), False, 5, "10x", "webp"),
        (("avif", "jpg", "png", "gif"), False, 5, "10x", "gif"),
        (("avif", "webp", "jpg", "png", "gif"), False, 1, "10x,lossless=true", "webp"),
        (("avif", "jpg", "png", "gif"), False, 1, "10x,lossless=true", "png"),
        ((), False, 5, "10x,lossless=true", "webp"),
        (("png",), False, 1, "10x", "png"),
        (("gif",), False, 1, "10x", "gif"),
        (("jpg",), True, 1, "10x", "jpg"),
        (("avif", "jpg"), False, 5, "10x", "avif"),
        (("jpg", "avif"), False, 1, "10x,lossless=true", "avif"),
        (("jpg",), False, 1, "10x,lossless=true", "png"),
    ],
)
def test_the_format_is_the_best_that_client_and_image_agree_on(
    ranked: tuple[str, ...], alpha: bool, frames: int, transform: str, chosen: str
) -> None:
    assert choose_format(ranked, image(alpha=alpha, frames=frames), Transform.parse(transform), Limits()) == chosen


def test_negotiation_keeps_animations_and_transparency(library: Library) -> None:
    library.add(film([(255, 0, 0), (0, 0, 255)]), ident="film")
    library.add(encoded(see_through()), ident="glass")
    delivery = Delivery(library)
    moving = delivery.answer(get("/image/film", accept="image/webp"))
    assert isinstance(moving.body, bytes)
    assert Picture.open(io.BytesIO(moving.body)).n_frames > 1  # type: ignore[attr-defined]
    assert header(delivery.answer(get("/image/20x/glass", accept="*/*")), "content-type") == "image/png"


@pytest.mark.parametrize(
    ("name", "stem", "expected"),
    [
        (None, "", "x.jpg"),
        ("sunset.png", "", "sunset.jpg"),
        ("sunset.png", "300x200,fit=cover", "sunset-300x200.jpg"),
        ("sunset.png", "rotate=90", "sunset.jpg"),
        ("C:\\photos\\sun set.png", "", "sun set.jpg"),
        ("../../etc/passwd", "", "passwd.jpg"),
        (".png", "", ".png.jpg"),
        ("a\r\nSet-Cookie: x.png", "", "aSet-Cookie: x.jpg"),
        ("  ", "", "x.jpg"),
        ("n" * 300 + ".png", "", "n" * 100 + ".jpg"),
    ],
)
def test_the_name_for_saving_is_the_uploaded_one_made_harmless(name: str | None, stem: str, expected: str) -> None:
    assert filename(image(name=name), stem, "jpg") == expected


def test_a_format_that_cannot_hold_the_result_is_passed_over(library: Library) -> None:
    long = Picture.new("RGB", (40, 17_000), (10, 200, 30))
    library.add(encoded(long), ident="long")
    delivery = Delivery(library)
    assert header(delivery.answer(get("/image/long.auto", accept=CHROME)), "content-type") == "image/jpeg"
    assert header(delivery.answer(get("/image/x8000/long.auto", accept=CHROME)), "content-type") == "image/avif"


def test_what_was_looked_up_before_a_deletion_is_not_remembered_after_it(library: Library) -> None:
    """The read was under way when the image was deleted, and ended afterwards."""
    library.add(jpg(quadrants()), ident="pic")
    library.variant("pic", "60x", format="jpg")
    delivery, request = remembering(library), get("/image/60x/pic.jpg")
    find = library.shelf.find

    def late(ident: str, transform: Transform) -> bytes | None:
        body = find(ident, transform)
        library.delete("pic")
        return body

    library.shelf.find = late  # type: ignore[method-assign]
    assert delivery.answer(request).status == 200
    library.shelf.find = find  # type: ignore[method-assign]
    assert delivery.cached(request) is None
    assert delivery.answer(request).status == 404
    library.add(jpg(quadrants()), ident="other")
    get_row = library.catalog.get

    def late_row(ident: str) -> Image:
        row = get_row(ident)
        if ident == "other":
            library.catalog.get = get_row  # type: ignore[method-assign]
            library.delete("other")
        return row

    library.catalog.get = late_row  # type: ignore[method-assign]
    library.get("other")
    with pytest.raises(UnknownImage):
        library.get("other")


@pytest.mark.parametrize("size", [100, 1_200_000])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_lost_original_is_an_error_of_ours(library: Library, size: int, method: str) -> None:
    body = jpg(quadrants())
    body = body + bytes(max(0, size - len(body)))  # what follows the end of a JPEG belongs to nobody
    library.add(body, ident="lost")
    library.store.delete("lost/origin.jpg")
    delivery = Delivery(library)
    assert delivery.answer(Request(method=method, path="/image/lost.jpg")).status == 503
    assert delivery.answer(Request(method=method, path="/image/60x/lost.jpg")).status == 503


def test_what_cannot_be_had_is_never_not_modified(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    delivery = Delivery(library)
    assert delivery.answer(get("/image/crop=5000:5000:10:10/pic.jpg", if_none_match="*")).status == 400
    assert delivery.answer(get("/image/pic.tiff", if_none_match="*")).status == 404


def test_preconditions_are_judged_alike_cold_and_warm(library: Library) -> None:
    library.add(jpg(quadrants()), ident="pic")
    tag = header(Delivery(library).answer(get("/image/60x/pic.jpg")), "etag")
    old = get("/image/60x/pic.jpg", if_none_match=tag, if_unmodified_since="Mon, 01 Jan 2001 00:00:00 GMT")
    warm = remembering(library)
    warm.answer(get("/image/60x/pic.jpg"))
    assert [warm.answer(old).status, Delivery(library).answer(old).status] == [412, 412]
