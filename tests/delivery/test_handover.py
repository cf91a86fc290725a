"""Stored images that the store or nginx sends: who is redirected where, for how long, and when it is us after all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.composition import make_delivery
from lazypix.delivery import Delivery
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import SettingsError
from lazypix.handover import StoredImages, choose_handover
from lazypix.http import Answer, Request
from lazypix.settings import load
from lazypix.stores import BlobStore
from lazypix.stores.local import LocalStore

PUBLIC = "https://cdn.example/pictures"
CHROME = "image/avif,image/webp,image/*,*/*;q=0.8"
YEARS_AGO = "Sat, 01 Jan 2000 00:00:00 GMT"


class SigningStore(WrappedStore):
    """A store without files and without a public address, which signs addresses."""

    signed = 0

    def local_path(self, key: str) -> Path | None:
        return None

    def url(self, key: str, *, expires_s: int | None) -> str | None:
        if expires_s is None:
            return None
        self.signed += 1
        return f"https://bucket.example/{key}?Expires={expires_s}&Signature=secret{self.signed}"


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Library]:
    """A library whose store has public addresses; it holds `pic`, and the variant 60x of it as JPEG and AVIF."""
    yield from _library(tmp_path / "public", LocalStore(tmp_path / "public", public_url=PUBLIC))


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[Library]:
    """The same with a store that signs addresses."""
    yield from _library(tmp_path / "signing", SigningStore(LocalStore(tmp_path / "signing")))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Library]:
    """The same with a plain folder."""
    yield from _library(tmp_path / "files", LocalStore(tmp_path / "files"))


def _library(folder: Path, store: BlobStore) -> Iterator[Library]:
    with Library.open(folder.with_suffix(".library"), store=store, engine=ThreadEngine(1)) as library:
        library.add(jpg(quadrants(120, 80)), ident="pic", filename="sunset.jpg")
        for format_name in ("jpg", "avif"):
            library.variant("pic", "60x", format=format_name)
        yield library


def delivery(
    library: Library, ways: StoredImages = "redirect", *, accel: str = "", expires_s: int = 3600, **options: Any
) -> Delivery:
    max_age_s = options.setdefault("max_age_s", 86_400)
    options.setdefault("cache_ttl_s", 60)  # as long as a test may take
    handover = choose_handover(
        library.store, stored_images=ways, expires_s=expires_s, max_age_s=max_age_s, accel_redirect=accel
    )
    return Delivery(library, handover=handover, **options)


def get(path: str, **headers: str) -> Request:
    return Request(method="GET", path=path, **headers)


def headers(answer: Answer) -> dict[str, str]:
    names = [name for name, _ in answer.headers]
    assert len(set(names)) == len(names), names
    return {name.decode(): value.decode() for name, value in answer.headers}


@pytest.mark.parametrize(("ways", "status"), [("redirect", 302), ("permanent", 301)])
@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/image/pic.jpg", "pic/origin.jpg"),
        ("/image/60x/pic.jpg", "pic/60x.jpg"),
        ("/image/060x/pic.jpeg", "pic/60x.jpg"),
        ("/image/pic.jpg?width=60&height=0", ""),
    ],
)
def test_what_is_stored_is_redirected_to_its_public_address(
    public: Library, ways: StoredImages, status: int, path: str, key: str
) -> None:
    if not key:  # a size of ImageServer's: its canonical text names its quality
        key = "pic/60x,fit=outside,quality=90.jpg"
        public.variant("pic", "60x,fit=outside,quality=90", format="jpg")
    asked = Request(method="GET", path=path.partition("?")[0], query=path.partition("?")[2])
    redirecting = delivery(public, ways)
    for answer in (redirecting.answer(asked), redirecting.cached(asked)):
        assert answer is not None
        assert (answer.status, answer.body) == (status, b"")
        told = headers(answer)
        assert told["location"] == f"{PUBLIC}/{key}"
        assert told["cache-control"] == "public, max-age=86400"
        assert told["content-length"] == "0"
        assert told["access-control-allow-origin"] == "*"
        assert {"vary", "etag", "content-type", "content-disposition"}.isdisjoint(told)


def test_a_redirect_that_was_negotiated_is_for_clients_that_take_the_same_and_never_permanent(
    public: Library,
) -> None:
    redirecting = delivery(public, "permanent")
    for accept, extension in ((CHROME, "avif"), ("image/jpeg", "jpg"), (CHROME, "avif")):
        answer = redirecting.answer(get("/image/60x/pic.auto", accept=accept))
        assert answer.status == 302
        assert headers(answer)["vary"] == "accept"
        assert headers(answer)["location"] == f"{PUBLIC}/pic/60x.{extension}"


def test_a_new_variant_is_sent_and_the_next_time_redirected(public: Library) -> None:
    redirecting = delivery(public)
    asked = get("/image/30x/pic.webp")
    made = redirecting.answer(asked)
    assert made.status == 200
    assert isinstance(made.body, bytes)
    assert made.body[8:12] == b"WEBP"
    public.variant("pic", "30x", format="webp")  # returns when it is stored
    assert redirecting.answer(asked).status == 302
    unchanged = redirecting.answer(replace(asked, if_none_match=headers(made)["etag"]))
    assert unchanged.status == 304


def test_nothing_of_a_redirected_image_is_read(signing: Library) -> None:
    assert isinstance(signing.store, SigningStore)
    redirecting = delivery(signing)
    before = len(signing.store.calls)
    for path in ("/image/pic.jpg", "/image/60x/pic.jpg", "/image/60x/pic.jpg"):
        assert redirecting.answer(get(path)).status == 302
    assert signing.store.calls[before:] == [("head", "pic/origin.jpg"), ("head", "pic/60x.jpg")]


@pytest.mark.parametrize("ways", ["redirect", "permanent"])
def test_a_signed_address_is_never_permanent_and_outlives_the_redirect(signing: Library, ways: StoredImages) -> None:
    answer = delivery(signing, ways, expires_s=600).answer(get("/image/60x/pic.jpg"))
    assert answer.status == 302
    assert headers(answer)["location"].startswith("https://bucket.example/pic/60x.jpg?Expires=600&")
    assert headers(answer)["cache-control"] == "public, max-age=300"
    short = delivery(signing, ways, max_age_s=60).answer(get("/image/60x/pic.jpg"))
    assert headers(short)["cache-control"] == "public, max-age=60"


def test_a_signed_address_is_remembered_for_a_quarter_of_its_time_at_most(signing: Library) -> None:
    asked = get("/image/60x/pic.jpg")
    for expires_s, ttl_s, remembered in ((1000, 250.0, True), (1000, 251.0, False), (3600, 60.0, True)):
        redirecting = delivery(signing, expires_s=expires_s, cache_ttl_s=ttl_s)
        first = redirecting.answer(asked)
        assert (redirecting.cached(asked) is not None) is remembered
        again = headers(redirecting.answer(asked))["location"]
        assert (again == headers(first)["location"]) is remembered


@pytest.mark.parametrize("path", ["/image/pic.jpg", "/image/60x/pic.jpg"])
def test_head_and_conditions_work_where_others_are_redirected(public: Library, path: str) -> None:
    sent = Delivery(public).answer(get(path))
    tag, modified = headers(sent)["etag"], headers(sent)["last-modified"]
    redirecting = delivery(public)
    for _ in ("first from the store", "then from memory"):
        head = redirecting.answer(Request(method="HEAD", path=path))
        assert (head.status, head.body) == (302, b"")
        for status, conditions in (
            (304, {"if_none_match": tag}),
            (304, {"if_modified_since": modified}),
            (412, {"if_match": '"other"'}),
            (412, {"if_unmodified_since": YEARS_AGO}),
            (302, {"if_match": tag}),
            (302, {"if_none_match": '"other"'}),
            (302, {"range": "bytes=0-9"}),
        ):
            assert redirecting.answer(get(path, **conditions)).status == status, conditions
        assert redirecting.answer(get(path)).status == 302


def test_a_deleted_image_is_not_redirected_any_more(public: Library) -> None:
    redirecting = delivery(public, "permanent")
    assert redirecting.answer(get("/image/60x/pic.jpg")).status == 301
    public.delete("pic")
    for path in ("/image/60x/pic.jpg", "/image/pic.jpg"):
        assert redirecting.answer(get(path)).status == 404


def test_an_original_that_is_lost_or_damaged_is_an_error_and_no_redirect(public: Library) -> None:
    public.store.delete("pic/origin.jpg")
    assert delivery(public).answer(get("/image/pic.jpg")).status == 503
    public.catalog.health.mark("pic", damaged=True)
    public.originals.forget("pic")
    assert delivery(public).answer(get("/image/pic.jpg")).status == 503


# --- nginx -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "key"), [("/image/pic.jpg", "origin.jpg"), ("/image/60x/pic.jpg", "60x.jpg")])
def test_nginx_is_told_the_file_with_all_headers_of_the_answer(files: Library, path: str, key: str) -> None:
    sent = headers(Delivery(files).answer(get(path)))
    handing = delivery(files, "proxy", accel="/files/")
    for asked in (get(path), get(path), Request(method="HEAD", path=path), get(path, range="bytes=0-9")):
        answer = handing.answer(asked)
        told = headers(answer)
        assert (answer.status, answer.body) == (200, b"")
        assert told.pop("x-accel-redirect") == f"/files/pic/{key}"
        assert told.pop("content-length") == "0"
        assert told.keys() == sent.keys() - {"content-length", "accept-ranges"}
        for name in told.keys() - {"server-timing"}:
            assert told[name] == sent[name]


def test_names_are_encoded_for_nginx(tmp_path: Path) -> None:
    handover = choose_handover(
        LocalStore(tmp_path), stored_images="proxy", expires_s=60, max_age_s=0, accel_redirect="/x/"
    )
    assert handover is not None
    with Library.open(tmp_path / "library", engine=ThreadEngine(1)) as library:
        library.add(jpg(quadrants()), ident="pic")
        representation: list[Any] = []

        class Spy:
            good_for_s = 0.0

            def answer(self, key: str, whole: Any, request: Request, *, left_s: float | None = None) -> Answer | None:
                representation.append(whole)
                return None

        Delivery(library, handover=Spy()).answer(get("/image/pic.jpg"))
    answer = handover.answer("ä b%/q=1,2:3?.jpg", representation[0], get("/image/pic.jpg"))
    assert answer is not None
    assert headers(answer)["x-accel-redirect"] == "/x/%C3%A4%20b%25/q=1,2:3%3F.jpg"


def test_conditions_are_ours_and_what_nginx_would_judge_again_is_sent_by_ourselves(files: Library) -> None:
    plain = headers(Delivery(files).answer(get("/image/60x/pic.jpg")))
    handing = delivery(files, "proxy", accel="/files/")
    for _ in ("first from the store", "then from memory"):
        for status, handed, conditions in (
            (304, False, {"if_none_match": plain["etag"]}),
            (304, False, {"if_modified_since": plain["last-modified"]}),
            (412, False, {"if_match": '"other"'}),
            (200, False, {"if_match": plain["etag"]}),
            (200, False, {"if_unmodified_since": plain["last-modified"]}),
            (200, True, {"if_none_match": '"other"'}),
            (200, True, {"if_modified_since": YEARS_AGO}),
        ):
            answer = handing.answer(get("/image/60x/pic.jpg", **conditions))
            assert answer.status == status, conditions
            assert ("x-accel-redirect" in headers(answer)) is handed, conditions
            assert (answer.body != b"") is (status == 200 and not handed), conditions


def test_a_large_original_and_a_new_variant(files: Library) -> None:
    original = encoded(noise(800, 600))
    files.add(original, ident="large")
    handing = delivery(files, "proxy", accel="/files/")
    assert headers(handing.answer(get("/image/large.png")))["x-accel-redirect"] == "/files/large/origin.png"
    new = handing.answer(get("/image/50x/large.webp"))
    assert "x-accel-redirect" not in headers(new)
    assert new.body


# --- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stored_images": "redirect"}, "stored_images='redirect' needs a store .* public URL, or one that signs"),
        ({"stored_images": "permanent"}, "stored_images='permanent' needs a store"),
        ({"stored_images": "redirect", "accel_redirect": "/x/"}, "exclude each other"),
    ],
)
def test_a_store_that_cannot_do_it_is_told_at_the_start(files: Library, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_delivery(load(settings, {}), files)


def test_a_store_without_files_cannot_be_handed_to_nginx(signing: Library) -> None:
    with pytest.raises(SettingsError, match="accel_redirect='/x/' needs a store that is a folder"):
        make_delivery(load({"accel_redirect": "/x/"}, {}), signing)


def test_the_settings_choose(public: Library, files: Library) -> None:
    asked = get("/image/60x/pic.jpg")
    assert make_delivery(load({}, {}), public).answer(asked).status == 200
    assert make_delivery(load({"stored_images": "permanent", "max_age_s": 5}, {}), public).answer(asked).status == 301
    handed = make_delivery(load({"accel_redirect": "/x/"}, {}), files).answer(asked)
    assert headers(handed)["x-accel-redirect"] == "/x/pic/60x.jpg"


@pytest.mark.parametrize("prefix", ["x/", "/x", "/", "//", "/../", "/a b/", "/image/", "/x/;/", "/x/\n"])
def test_a_path_for_nginx_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="accel_redirect="):
        load({"accel_redirect": prefix}, {})
