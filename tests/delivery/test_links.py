"""Signed links on the way of a request: refused before anything is looked up, and ended to the second, memory or not."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests import programs
from tests.delivery.test_handover import PUBLIC, SigningStore
from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.waiting import until
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.addresses import Addresses
from lazypix.answers import SharedAnswers
from lazypix.cache.opening import open_cache
from lazypix.delivery import Delivery
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import BadTransform
from lazypix.gate import Gate, Mode
from lazypix.handover import NginxHandover, StoreRedirect
from lazypix.http import Answer, Request
from lazypix.presets import Presets
from lazypix.signing.links import KeyRing
from lazypix.stores import BlobStore
from lazypix.stores.local import LocalStore

NOW = 1_800_000_000.0
RING = KeyRing.of(["k1:a-secret-of-very-many-characters"])
PRESETS = Presets.read({"thumb": "60x", "square": "40x40,fit=cover"})


@dataclass
class Clock:
    """What the time is, as the test says."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def gate(clock: Clock, mode: Mode = "signed") -> Gate:
    return Gate(mode=mode, ring=RING, presets=PRESETS, clock=clock)


def opened(folder: Path, clock: Clock, store: BlobStore | None = None, **options: Any) -> Library:
    options.setdefault("gate", gate(clock))
    library = Library.open(folder, store=store, engine=ThreadEngine(1), expiry_step_s=1, **options)
    library.add(jpg(quadrants(120, 80)), ident="pic")
    return library


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def library(tmp_path: Path, clock: Clock) -> Iterator[Library]:
    with opened(tmp_path / "library", clock) as library:
        yield library


def get(url: str, **headers: str) -> Request:
    path, _, query = url.partition("?")
    return Request(method="GET", path=path, query=query, **headers)


def headers(answer: Answer) -> dict[str, str]:
    names = [name for name, _ in answer.headers]
    assert len(set(names)) == len(names), names
    return {name.decode(): value.decode() for name, value in answer.headers}


def told(answer: Answer) -> tuple[int, str | None]:
    return answer.status, headers(answer).get("lazypix-error")


BAD, EXPIRED = (403, "bad_signature"), (403, "link_expired")


def test_what_is_not_signed_is_refused_before_anything_is_looked_up(tmp_path: Path, clock: Clock) -> None:
    store = WrappedStore(LocalStore(tmp_path / "images"))
    with opened(tmp_path / "library", clock, store) as library:
        delivery, link = Delivery(library), library.url("nobody", "60x")
        store.calls.clear()
        for url in ("/image/60x/pic.jpg", "/image/pic.jpg", "/image/60x/nobody.jpg", link[:-1], f"{link}&"):
            assert told(delivery.answer(get(url))) == BAD
            assert headers(delivery.answer(get(url)))["cache-control"] == "no-store"
        assert told(delivery.answer(get(link))) == (404, "unknown_image")
        assert store.calls == []


def test_a_link_ends_to_the_second_although_its_answer_is_in_memory(library: Library, clock: Clock) -> None:
    delivery = Delivery(library, cache_ttl_s=600)
    link = library.url("pic", "60x", format="jpg", expires_s=100)
    first = delivery.answer(get(link))
    again = get(link, if_none_match=headers(first)["etag"])
    assert first.status == 200
    clock.now += 99.999
    hit = delivery.cached(get(link))
    assert hit is not None
    assert hit.body == first.body
    part = delivery.cached(get(link, range="bytes=0-9"))
    assert part is not None
    assert part.status == 206
    assert told(delivery.answer(again)) == (304, None)
    clock.now += 0.001
    for request in (get(link), again, get(link, range="bytes=0-9"), replace(get(link), method="HEAD")):
        assert delivery.cached(request) is None
        assert told(delivery.answer(request)) == EXPIRED


def test_a_remembered_304_ends_too(library: Library, clock: Clock) -> None:
    link = library.url("pic", "60x", format="jpg", expires_s=100)
    again = get(link, if_none_match=headers(Delivery(library).answer(get(link)))["etag"])
    delivery = Delivery(library, cache_ttl_s=600)  # the image itself is not in its memory
    assert told(delivery.answer(again)) == (304, None)
    assert delivery.cached(again) is not None
    clock.now += 100
    assert delivery.cached(again) is None
    assert told(delivery.answer(again)) == EXPIRED


def test_a_hit_is_not_verified_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery, link = Delivery(library, cache_ttl_s=600), library.url("pic", "60x", format="jpg", expires_s=100)
    assert delivery.answer(get(link)).status == 200
    monkeypatch.setattr(hmac, "digest", None)
    assert delivery.cached(get(link)) is not None
    tampered = get(link.replace("60x", "61x"))
    assert delivery.cached(tampered) is None
    with pytest.raises(TypeError):  # which must be verified
        delivery.begin(tampered)


@pytest.mark.parametrize(
    ("expires_s", "max_age"), [(None, 86_400), (1_000_000, 86_400), (3600, 3597), (100, 97), (2, 0)]
)
def test_caches_are_not_told_to_keep_what_expires(library: Library, expires_s: int | None, max_age: int) -> None:
    """Less the time that an answer may be given again from our own memory, with the same headers."""
    delivery = Delivery(library, cache_ttl_s=2.5)
    link = library.url("pic", "60x", format="jpg", expires_s=expires_s)
    whole = delivery.answer(get(link))
    for answer in (
        whole,
        delivery.answer(get(link)),
        delivery.answer(get(link, if_none_match=headers(whole)["etag"])),
    ):
        assert headers(answer)["cache-control"] == f"public, max-age={max_age}"
    assert headers(whole).get("x-accel-expires") == (None if expires_s is None else "0")


def test_presets_are_had_by_name_and_by_text(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path / "library", clock, gate=gate(clock, "presets")) as library:
        delivery = Delivery(library)
        named, spelled = (delivery.answer(get(f"/image/{text}/pic.webp")) for text in ("@thumb", "60x"))
        assert (named.status, named.body) == (200, spelled.body)
        assert headers(named)["etag"] == headers(spelled)["etag"]
        assert (
            delivery.answer(
                get(
                    "/image/pic.webp",
                )
            ).status
            == 403
        )
        for url in ("/image/61x/pic.webp", "/image/pic.jpg", "/image/60/pic.jpg", "/image/pic.jpg?width=60&height=0"):
            assert told(delivery.answer(get(url))) == BAD
        assert delivery.answer(get(library.url("pic", "61x"))).status == 200
        assert told(delivery.answer(get("/image/@huge/pic.webp"))) == (400, "bad_transform")
        assert library.variant("pic", "@square", format="png").transform.stem == "40x40,fit=cover"


def test_one_answer_is_shared_by_all_links_to_it_and_each_is_told_its_own_time(tmp_path: Path, clock: Clock) -> None:
    with programs.redis(tmp_path) as redis:
        shared = SharedAnswers(open_cache(f"redis://{redis.address}/0"), ttl_s=60)
        with opened(tmp_path / "library", clock, shared=shared) as library:
            delivery = Delivery(library, cache_ttl_s=0.0)
            short, long = (library.url("pic", "60x", format="jpg", expires_s=seconds) for seconds in (100, 5000))
            assert headers(delivery.answer(get(short)))["cache-control"] == "public, max-age=100"

            def found() -> bool:
                told = headers(Delivery(library).answer(get(long)))
                assert told["cache-control"] == "public, max-age=4997"
                return told["server-timing"] == "shared;desc=hit"

            until(found)
            clock.now += 100
            assert told(delivery.answer(get(short))) == EXPIRED
            assert Delivery(library).answer(get(long)).status == 200


def test_an_address_of_the_store_is_not_signed_for_longer_than_the_link(tmp_path: Path, clock: Clock) -> None:
    store = SigningStore(LocalStore(tmp_path / "images"))
    with opened(tmp_path / "library", clock, store) as library:
        library.variant("pic", "60x", format="jpg")
        redirect = StoreRedirect(store, permanent=False, expires_s=3600, max_age_s=86_400)
        delivery = Delivery(library, handover=redirect, cache_ttl_s=600)

        def expiry(url: str) -> tuple[str, str]:
            answer = Delivery(library, handover=redirect, cache_ttl_s=0).answer(get(url))
            assert answer.status == 302
            said = headers(answer)
            return said["location"].partition("?")[2].partition("&")[0], said["cache-control"]

        assert expiry(library.url("pic", "60x", format="jpg")) == ("Expires=3600", "public, max-age=1800")
        assert expiry(library.url("pic", "60x", format="jpg", expires_s=9999)) == (
            "Expires=3600", "public, max-age=1800",
        )  # fmt: skip
        link = library.url("pic", "60x", format="jpg", expires_s=100)
        assert expiry(link) == ("Expires=100", "public, max-age=50")
        clock.now += 99
        assert expiry(link) == ("Expires=1", "public, max-age=0")
        clock.now += 0.5
        assert (
            Delivery(library, handover=redirect, cache_ttl_s=0).answer(get(link)).status == 200
        )  # sent by ourselves
        clock.now += 0.5
        assert told(delivery.answer(get(link))) == EXPIRED


def test_a_redirect_in_memory_ends_with_its_link(tmp_path: Path, clock: Clock) -> None:
    store = LocalStore(tmp_path / "images", public_url=PUBLIC)
    with opened(tmp_path / "library", clock, store) as library:
        library.variant("pic", "60x", format="jpg")
        redirect = StoreRedirect(store, permanent=True, expires_s=3600, max_age_s=86_400)
        delivery = Delivery(library, handover=redirect, cache_ttl_s=10)
        lasting, link = (library.url("pic", "60x", format="jpg", expires_s=seconds) for seconds in (None, 100))
        assert delivery.answer(get(lasting)).status == 301
        for _ in ("from the store", "from memory"):
            answer = delivery.answer(get(link))
            assert (answer.status, headers(answer)["cache-control"]) == (302, "public, max-age=45")
        clock.now += 100
        assert delivery.cached(get(link)) is None
        assert told(delivery.answer(get(link))) == EXPIRED
        assert delivery.answer(get(lasting)).status == 301


def test_what_nginx_sends_ends_with_its_link(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path / "library", clock) as library:
        library.variant("pic", "60x", format="jpg")
        delivery = Delivery(library, handover=NginxHandover("/files/"), cache_ttl_s=600)
        link = library.url("pic", "60x", format="jpg", expires_s=1000)
        for _ in ("from the store", "from memory"):
            answer = headers(delivery.answer(get(link)))
            assert answer["x-accel-redirect"] == "/files/pic/60x.jpg"
            assert answer["cache-control"] == "public, max-age=400"
        clock.now += 1000
        assert delivery.cached(get(link)) is None
        assert told(delivery.answer(get(link))) == EXPIRED


def test_addresses_are_written_in_a_process_without_a_library(library: Library, clock: Clock) -> None:
    link = Addresses(gate=gate(clock)).url("pic", "60x", format="jpg")
    assert Delivery(library).answer(get(link)).status == 200


def test_a_large_original_needs_a_link_as_well(library: Library) -> None:
    library.add(encoded(noise(900, 900), "png"), ident="large")
    delivery = Delivery(library)
    assert told(delivery.answer(get("/image/large.png"))) == BAD
    box = library.url("large", "80x80", scope="100x100").partition("?")[2]
    assert told(delivery.answer(get(f"/image/large.png?{box}"))) == BAD
    assert delivery.answer(get(f"/image/100x100,fit=cover/large.webp?{box}")).status == 200
    assert delivery.answer(get(library.url("large", format="png"))).status == 200


@pytest.mark.parametrize("format_name", ["tiff", "tif", "png"])
@pytest.mark.parametrize("expires_s", [None, 60.0])
def test_the_original_has_an_address_in_whatever_format_it_came(
    library: Library, format_name: str, expires_s: float | None
) -> None:
    data = encoded(quadrants(120, 80), "png" if format_name == "png" else "tiff")
    image = library.add(data)
    url = library.addresses.original(image.ident, format_name, expires_s=expires_s)
    delivery = Delivery(library)
    answer = delivery.answer(get(url))
    assert (answer.status, headers(answer)["content-length"]) == (200, str(len(data)))
    assert told(delivery.answer(get(url.partition("?")[0]))) == BAD
    with pytest.raises(BadTransform, match="exe"):
        library.addresses.original(image.ident, "exe")
