"""Who may ask for images of other servers, where not everybody may ask for everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest
from tests.receiving import receiving
from tests.test_fetching import Site, downloading_from

from lazypix import Library
from lazypix.delivery import Delivery
from lazypix.dialects.remote import remote_address
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import SettingsError
from lazypix.gate import Gate, Mode
from lazypix.handover import choose_handover
from lazypix.http import Request
from lazypix.presets import Presets
from lazypix.signing.links import KeyRing
from lazypix.stores.local import LocalStore


@pytest.fixture
def site() -> Iterator[Site]:
    with receiving() as receiver:
        made = Site(receiver)
        receiver.answer = made.answer
        yield made


def opened(site: Site, folder: Path, mode: Mode, *keys: str, store: LocalStore | None = None) -> Library:
    gate = Gate(mode=mode, ring=KeyRing.of(keys), presets=Presets.read({"thumb": "20x20,fit=cover"}))
    return Library.open(
        folder, engine=ThreadEngine(1), store=store, gate=gate, downloader=downloading_from(site),
        remote_hosts=["127.0.0.1"], remote_ttl_s=600, base_url="https://img.example",
    )  # fmt: skip


def status(delivery: Delivery, url: str) -> int:
    path, _, query = url.removeprefix("https://img.example").partition("?")
    return delivery.answer(Request(method="GET", path=path, query=query)).status


KEY = "a:0123456789abcdef0123456789abcdef"


def test_without_a_signature_nothing_is_fetched(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, "signed", KEY) as library:
        delivery = Delivery(library)
        assert status(delivery, remote_address(site.url, "20x", "jpg")) == 403
        assert status(delivery, remote_address(site.url, "20x20,fit=cover", "jpg")) == 403
        assert site.receiver.requests == []
        url = library.remote_url(site.url, "20x", format="jpg")
        assert url.startswith("https://img.example/remote/20x.jpg?url=")
        assert status(delivery, url) == 200


def test_a_link_is_good_for_its_own_url_and_size_only(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, "signed", KEY) as library:
        delivery = Delivery(library)
        url = library.remote_url(site.url, "20x", format="jpg")
        for changed in (
            url.replace("/20x", "/21x"), url.replace(".jpg", ".png"), url.replace("large", "small"), url[:-1],
            url.replace("picture", "%70icture"), url + "&url=a", url.replace("?url", "?url=b&url"),
        ):  # fmt: skip
            assert changed != url
            assert status(delivery, changed) in (400, 403)
        assert site.receiver.requests == []


def test_presets_may_be_had_by_everybody(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, "presets") as library:
        delivery = Delivery(library)
        assert status(delivery, remote_address(site.url, "21x", "jpg")) == 403
        assert site.receiver.requests == []
        url = library.remote_url(site.url, "@thumb", format="jpg")
        assert "s=" not in url.partition("url=")[2].partition("&")[2]
        assert status(delivery, url) == 200
        assert status(delivery, url.replace("20x20,fit=cover", "@thumb")) == 200
        with pytest.raises(SettingsError, match="url_keys"):
            library.remote_url(site.url, "21x")


def test_a_redirect_to_the_store_is_not_for_ever(site: Site, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "images", public_url="https://cdn.example")
    with opened(site, tmp_path, "open", KEY, store=store) as library:
        handover = choose_handover(
            store, stored_images="permanent", expires_s=3600, max_age_s=86_400, accel_redirect=""
        )
        delivery = Delivery(library, handover=handover)
        image = library.remote(site.url)
        path, _, query = remote_address(site.url, "full", "jpg").partition("?")
        answers = [
            delivery.answer(Request(method="GET", path=at, query=q))
            for at, q in ((path, query), (f"/image/{image.ident}.jpg", ""))
        ]
    assert [answer.status for answer in answers] == [302, 301]
    remote, own = (dict(answer.headers) for answer in answers)
    assert remote[b"location"] == own[b"location"]
    assert int(remote[b"cache-control"].rpartition(b"=")[2]) <= 600
    assert own[b"cache-control"] == b"public, max-age=86400"


def test_a_link_that_expires_is_not_kept_for_longer(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, "signed", KEY) as library:
        for expires_s, most_s in ((60.0, 120), (10_000.0, 600)):
            url = library.addresses.of_target(remote_address(site.url, "20x", "jpg"), expires_s=expires_s)
            path, _, query = url.removeprefix("https://img.example").partition("?")
            answer = Delivery(library).answer(Request(method="GET", path=path, query=query))
            assert answer.status == 200
            assert 0 < int(dict(answer.headers)[b"cache-control"].rpartition(b"=")[2]) <= most_s


def test_the_wsgi_face_hands_them_to_the_delivery(site: Site, tmp_path: Path) -> None:
    statuses: list[str] = []

    def begin(status: str, headers: object, error: object = None, /) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda _: None

    with opened(site, tmp_path, "open") as library:
        path, _, query = library.remote_url(site.url, "20x", format="png").partition("?")
        environ = {"PATH_INFO": path.removeprefix("https://img.example"), "QUERY_STRING": query}
        setup_testing_defaults(environ)
        body = b"".join(library.wsgi(environ, begin))
    assert statuses == ["200 OK"]
    assert body.startswith(b"\x89PNG")


def test_a_wrong_signature_is_refused_even_where_none_is_needed(site: Site, tmp_path: Path) -> None:
    with opened(site, tmp_path, "open", KEY) as library:
        url = library.remote_url(site.url, "20x", format="jpg")
        delivery = Delivery(library)
        assert status(delivery, f"{url}&s=a.0.x.{'A' * 43}") == 403
        assert status(delivery, url) == 200
