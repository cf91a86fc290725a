"""Object storage alone: what is set on objects, addresses that clients use, large bodies, and retries."""

from __future__ import annotations

import hashlib
import logging
import threading
import urllib.error
import urllib.request
import uuid
from contextlib import nullcontext
from http.client import HTTPResponse
from pathlib import Path

import pytest
from tests.faults.weather import weather_before
from tests.programs import Program, azure_store, s3_store

from lazypix.errors import BlobExists, BlobMissing, StoreFailed
from lazypix.stores import BlobStore
from lazypix.stores.object_errors import sent
from lazypix.stores.objects import ObjectStore


@pytest.fixture
def store(seaweedfs: Program) -> BlobStore:
    return s3_store(seaweedfs, uuid.uuid4().hex)


@pytest.fixture
def poor(rclone_s3: Program) -> BlobStore:
    return s3_store(rclone_s3, uuid.uuid4().hex)


def fetch(url: str) -> HTTPResponse:
    answer: HTTPResponse = urllib.request.urlopen(url, timeout=60)
    return answer


@pytest.mark.parametrize(
    ("key", "kind"),
    [("a/origin.jpg", "image/jpeg"), ("a/50x.webp", "image/webp"), ("a/image.json", "application/json")],
)
@pytest.mark.parametrize("verb", ["create", "put"])
def test_an_object_says_what_it_is_and_how_long_it_keeps(seaweedfs: Program, key: str, kind: str, verb: str) -> None:
    store = s3_store(seaweedfs, uuid.uuid4().hex, cache_control="public, max-age=77")
    getattr(store, verb)(key, b"body")
    url = store.url(key, expires_s=60)
    assert url is not None
    with fetch(url) as answer:
        assert answer.read() == b"body"
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == (kind, "public, max-age=77")


def test_a_signed_address_is_good_for_this_object_only(store: BlobStore, azurite: Program) -> None:
    for signing in (store, azure_store(azurite, uuid.uuid4().hex)):
        signing.put("a/b,fit=cover.jpg", b"body")
        signing.put("a/other.jpg", b"other")
        url = signing.url("a/b,fit=cover.jpg", expires_s=60)
        assert url is not None
        with fetch(url) as answer:
            assert answer.read() == b"body"
        for forged in (
            url.replace("b%2Cfit%3Dcover", "other").replace("b,fit=cover", "other"),
            url.partition("?")[0],
        ):
            with pytest.raises(urllib.error.HTTPError):
                fetch(forged)
        assert signing.url("a/b.jpg", expires_s=None) is None


def test_a_public_address_is_the_one_that_was_set(seaweedfs: Program) -> None:
    store = s3_store(seaweedfs, "p", public_url="https://cdn.example/photos/")
    assert store.url("a/b c,fit=cover.jpg", expires_s=None) == "https://cdn.example/photos/a/b%20c,fit=cover.jpg"


@pytest.mark.parametrize("verb", ["create", "put"])
def test_a_large_body_goes_in_parts_and_comes_back_whole(store: BlobStore, tmp_path: Path, verb: str) -> None:
    body = hashlib.sha256(b"seed").digest() * (25 * 1024 * 1024 // 32) + b"end"
    file = tmp_path / "large"
    file.write_bytes(body)
    getattr(store, verb)("a/large.tiff", file)
    digest = hashlib.sha256()
    for piece in store.read("a/large.tiff"):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(body).digest()
    assert store.head("a/large.tiff").size == len(body)


def test_what_a_service_can_do_is_found_out(
    store: BlobStore, poor: BlobStore, azurite: Program, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    able = {
        name: each.capabilities for name, each in (("strict", store), ("poor", poor), ("azure", azure_store(azurite)))
    }
    assert (able["strict"].creates_once, able["strict"].reads_ranges) == (True, True)
    assert (able["poor"].creates_once, able["poor"].reads_ranges) == (False, False)
    assert (able["azure"].creates_once, able["azure"].reads_ranges) == (True, True)
    assert "ignores conditional writes" in caplog.text
    assert [blob.key for blob in poor.list()] == [], "nothing is left of the probe"


def test_a_poor_service_is_asked_before_it_is_written_to(poor: BlobStore) -> None:
    poor.create("a/b.jpg", b"first")
    with pytest.raises(BlobExists):
        poor.create("a/b.jpg", b"second")
    assert poor.get("a/b.jpg") == b"first"
    assert b"".join(poor.read("a/b.jpg", 1, 3)) == b"irs"


def test_a_short_outage_is_sat_out(seaweedfs: Program) -> None:
    with weather_before(seaweedfs.port) as proxy:
        store = s3_store(seaweedfs, uuid.uuid4().hex, port=proxy.port, retries="12")
        store.put("a/b.jpg", b"body")
        for act in (lambda: store.get("a/b.jpg"), lambda: store.put("a/c.jpg", b"c")):
            proxy.change("down")
            timer = threading.Timer(0.2, proxy.change, ["fair"])
            timer.start()
            act()
            timer.join()
        assert store.get("a/c.jpg") == b"c"


def test_a_create_whose_answer_was_lost_is_known_for_ours(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    store.check()  # the probe is over
    put = obstore.put
    lost: list[int] = []

    def losing(*arguments: object, **options: object) -> object:
        result = put(*arguments, **options)  # type: ignore[arg-type]
        if not lost:
            lost.append(1)
            raise obstore.exceptions.GenericError("the connection broke")
        return result

    monkeypatch.setattr(obstore, "put", losing)
    store.create("a/b.jpg", b"ours")
    lost.clear()
    with pytest.raises(BlobExists):
        store.create("a/b.jpg", b"another's")
    assert store.get("a/b.jpg") == b"ours"


def test_a_bucket_that_does_not_exist_is_told(azurite: Program) -> None:
    from tests.programs import AZURE_ACCOUNT, AZURE_KEY

    from lazypix.stores.addresses import open_store

    address = f"az://nowhere?endpoint=http://{azurite.address}/{AZURE_ACCOUNT}&account={AZURE_ACCOUNT}&retries=0"
    store = open_store(address, secrets={"secret_key": AZURE_KEY})
    with pytest.raises(StoreFailed, match="bucket of the store does not exist"):
        store.check()
    with pytest.raises(StoreFailed, match="bucket of the store does not exist"):
        store.get("a/b.jpg")


def test_no_error_tells_where_or_who(seaweedfs: Program) -> None:
    with weather_before(seaweedfs.port) as proxy:
        store = s3_store(seaweedfs, port=proxy.port, retries="0", timeout="1")
        for weather in ("down", "errors", "hanging"):
            proxy.change(weather)
            with pytest.raises(StoreFailed) as failed:
                store.get("a/b.jpg")
            assert str(proxy.port) not in str(failed.value)
            assert "127.0.0.1" not in str(failed.value)
        assert isinstance(store, ObjectStore)
        assert repr(store) == "ObjectStore('s3://bucket/')"


def test_what_a_killed_probe_left_is_swept(store: BlobStore) -> None:
    import obstore

    assert isinstance(store, ObjectStore)
    obstore.put(store._client, "lazypix.probe/left", b"0123456789")
    assert [blob.key for blob in store.list()] == []
    assert store.sweep(older_than_s=3600) == 0
    assert store.sweep(older_than_s=0) == 1
    with pytest.raises(BlobMissing):
        store.head("lazypix.probe/left")


@pytest.mark.parametrize(("failures", "asked"), [(["connection was not ready"] * 2, 3), (["connection refused"], 1)])
def test_what_never_left_is_sent_again_and_nothing_else_is(failures: list[str], asked: int) -> None:
    """A service that closes a connection of the pool just when it is taken has not got the request."""
    from obstore.exceptions import GenericError

    answers: list[str] = []

    def ask(key: str) -> str:
        answers.append(key)
        if len(answers) <= len(failures):
            raise GenericError(f"Generic S3 error: HTTP error: error sending request ({failures[len(answers) - 1]})")
        return "body"

    with nullcontext() if asked > 1 else pytest.raises(GenericError, match="refused"):
        assert sent(ask, "a/b.jpg") == "body"
    assert answers == ["a/b.jpg"] * asked
