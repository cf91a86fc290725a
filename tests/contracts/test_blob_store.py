"""The contract of `BlobStore`, run on every store. A new store is done when it passes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.fakes.beansdb import FakeBeansdb
from tests.programs import azure_store, s3_store

from lazypix.errors import BlobExists, BlobMissing
from lazypix.stores import PIECE_BYTES, BlobStore, check_key
from lazypix.stores.beansdb import BeansdbStore
from lazypix.stores.local import LocalStore
from lazypix.stores.memory import MemoryStore


def _local(_: pytest.FixtureRequest, folder: Path) -> BlobStore:
    return LocalStore(folder)


def _memory(_: pytest.FixtureRequest, __: Path) -> BlobStore:
    return MemoryStore()


def _s3(request: pytest.FixtureRequest, _: Path) -> BlobStore:
    return s3_store(request.getfixturevalue("seaweedfs"), prefix=uuid.uuid4().hex)


def _poor_s3(request: pytest.FixtureRequest, _: Path) -> BlobStore:
    return s3_store(request.getfixturevalue("rclone_s3"), prefix=uuid.uuid4().hex)


def _azure(request: pytest.FixtureRequest, _: Path) -> BlobStore:
    return azure_store(request.getfixturevalue("azurite"), prefix=uuid.uuid4().hex)


def _beansdb(request: pytest.FixtureRequest, _: Path) -> BlobStore:
    servers = [FakeBeansdb(), FakeBeansdb(split=4), FakeBeansdb(hides_deleted=True)]
    for server in servers:
        request.addfinalizer(server.stop)
        server.start()
    return BeansdbStore([server.address for server in servers], prefix="images")


STORES: dict[str, Callable[[pytest.FixtureRequest, Path], BlobStore]] = {
    "local": _local,
    "memory": _memory,
    "s3": _s3,
    "poor-s3": _poor_s3,
    "azure": _azure,
    "beansdb": _beansdb,
}
"""How an empty store is made for one test; `folder` is one that does not exist yet."""


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    with closing(STORES[request.param](request, tmp_path / "store")) as opened:
        yield opened


def _keys(store: BlobStore, prefix: str = "") -> list[str]:
    keys = [blob.key for blob in store.list(prefix)]
    return keys if store.capabilities.lists_in_order else sorted(keys)


def _source(folder: Path, data: bytes) -> Path:
    path = folder / "finished"
    path.write_bytes(data)
    return path


# --- one blob --------------------------------------------------------------------------------------------------


def test_what_was_created_is_there(store: BlobStore) -> None:
    before = datetime.now(UTC)
    store.create("a/b.jpg", b"bytes")
    assert store.get("a/b.jpg") == b"bytes"
    blob = store.head("a/b.jpg")
    assert (blob.key, blob.size) == ("a/b.jpg", 5)
    assert before - timedelta(seconds=2) <= blob.modified <= datetime.now(UTC) + timedelta(seconds=2)
    path = store.local_path("a/b.jpg")
    assert path is None or path.read_bytes() == b"bytes"


def test_an_empty_blob_is_a_blob(store: BlobStore) -> None:
    store.create("a/empty", b"")
    assert store.get("a/empty") == b""
    assert store.head("a/empty").size == 0


def test_creating_again_is_refused_and_changes_nothing(store: BlobStore, tmp_path: Path) -> None:
    store.create("a/b", b"first")
    with pytest.raises(BlobExists, match="a/b"):
        store.create("a/b", b"second")
    with pytest.raises(BlobExists, match="a/b"):
        store.create("a/b", _source(tmp_path, b"third"))
    assert store.get("a/b") == b"first"
    assert _keys(store) == ["a/b"]


def test_put_makes_and_replaces(store: BlobStore, tmp_path: Path) -> None:
    store.put("a/b", b"first")
    assert store.get("a/b") == b"first"
    store.put("a/b", b"2nd")
    assert (store.get("a/b"), store.head("a/b").size) == (b"2nd", 3)
    store.put("a/b", _source(tmp_path, b"from a file"))
    assert store.get("a/b") == b"from a file"
    assert _keys(store) == ["a/b"]


@pytest.mark.parametrize("size", [1, 1024 * 1024 + 1, 20 * 1024 * 1024])
def test_a_finished_file_becomes_the_blob(store: BlobStore, tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    store.create("a/b", _source(tmp_path, data))
    assert store.get("a/b") == data
    assert store.head("a/b").size == size


def _read(store: BlobStore, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.read("a/b", start, length))


@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 4), (4, None), (2, 3), (9, 100), (10, 1), (500, None), (3, 0)]
)
def test_a_part_is_read_as_a_slice_is(store: BlobStore, start: int, length: int | None) -> None:
    store.create("a/b", b"0123456789")
    assert _read(store, start, length) == b"0123456789"[start:][:length]


def test_a_large_blob_is_read_in_pieces(store: BlobStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * (5 * PIECE_BYTES // 256) + b"end"
    store.create("a/b", _source(tmp_path, data))
    pieces = list(store.read("a/b"))
    assert b"".join(pieces) == data
    assert len(pieces) >= 3
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES
    assert _read(store, PIECE_BYTES + 7, 2 * PIECE_BYTES) == data[PIECE_BYTES + 7 :][: 2 * PIECE_BYTES]
    assert _read(store, len(data) - 3) == b"end"


def test_reading_what_is_not_there_in_pieces(store: BlobStore) -> None:
    with pytest.raises(BlobMissing, match="a/b"):
        next(store.read("a/b"))
    with pytest.raises(BlobMissing, match="a/b"):
        next(store.read("a/b", 5, 5))


def test_reading_may_stop_in_the_middle(store: BlobStore) -> None:
    store.create("a/b", b"x" * (3 * PIECE_BYTES))
    assert next(store.read("a/b"))
    store.put("a/b", b"y")
    assert _read(store) == b"y"


def test_a_store_gives_a_sign_of_life(store: BlobStore) -> None:
    store.check()
    assert _keys(store) == []
    assert store.sweep(older_than_s=0) == 0


def test_closing_twice_is_harmless(store: BlobStore) -> None:
    store.close()
    store.close()


def test_what_is_not_there_is_missing(store: BlobStore) -> None:
    store.create("a/b/c", b"x")
    for key in ("nothing", "a/nothing", "a/b/nothing", "no/such/folder"):
        with pytest.raises(BlobMissing, match=key):
            store.get(key)
        with pytest.raises(BlobMissing, match=key):
            store.head(key)
        assert store.delete(key) is False


def test_a_prefix_is_no_blob(store: BlobStore) -> None:
    store.create("a/b/c", b"x")
    for key in ("a", "a/b"):
        with pytest.raises(BlobMissing):
            store.get(key)
        with pytest.raises(BlobMissing):
            store.head(key)
        assert store.delete(key) is False
    assert store.get("a/b/c") == b"x"


def test_delete_removes_one(store: BlobStore) -> None:
    store.create("a/b", b"1")
    store.create("a/c", b"2")
    assert store.delete("a/b") is True
    assert store.delete("a/b") is False
    assert _keys(store) == ["a/c"]
    store.create("a/b", b"new")
    assert store.get("a/b") == b"new"


# --- many ------------------------------------------------------------------------------------------------------


def test_list_is_in_the_order_of_keys(store: BlobStore) -> None:
    keys = [
        "a",
        "a.jpg",
        "a-b",
        "a0/x",
        "b/origin.jpg",
        "b/100x50.jpg",
        "b/100x50,fit=cover.jpg",
        "b/é",
        "B/x",
        "b-/y",
    ]
    for key in keys:
        store.create(key, key.encode())
    assert _keys(store) == sorted(keys)
    assert {blob.key: blob.size for blob in store.list()} == {key: len(key.encode()) for key in keys}


def test_a_folder_and_its_namesakes_come_in_the_order_of_keys(store: BlobStore) -> None:
    keys = ["a/x", "a-b/x", "a.b/x", "a0/x", "a.jpg"]
    for key in keys:
        store.create(key, b"")
    assert _keys(store) == sorted(keys)


def test_more_blobs_than_a_page_are_listed(store: BlobStore) -> None:
    keys = sorted(f"image/{number:04}.jpg" for number in range(1100))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))
    assert _keys(store, "image/") == keys
    assert store.delete_prefix("image/") == 1100
    assert _keys(store) == []


def test_a_prefix_is_whole_segments(store: BlobStore) -> None:
    for key in ("a/1", "a/2", "a/b/3", "ab/4", "b/a/5"):
        store.create(key, b"")
    assert _keys(store, "a/") == ["a/1", "a/2", "a/b/3"]
    assert _keys(store, "a/b/") == ["a/b/3"]
    assert _keys(store, "none/") == []
    assert _keys(store, "a/1/") == []


def test_delete_prefix_removes_everything_under_it_and_nothing_else(store: BlobStore) -> None:
    for key in ("a/1", "a/2", "a/b/3", "ab/4", "b/a/5"):
        store.create(key, b"")
    assert store.delete_prefix("a/") == 3
    assert _keys(store) == ["ab/4", "b/a/5"]
    assert store.delete_prefix("a/") == 0
    assert store.delete_prefix("none/at/all/") == 0
    store.create("a/1", b"again")
    assert store.get("a/1") == b"again"


def test_delete_prefix_spares_a_blob_of_that_name(store: BlobStore) -> None:
    store.create("a", b"x")
    assert store.delete_prefix("a/") == 0
    assert store.get("a") == b"x"


# --- keys ------------------------------------------------------------------------------------------------------

ODD = [
    "a b", "a,b=c", "a:b", "a'b\"c", "a%2fb", "a?b#c", "a&b;c", "~a", "-rf", "a.", "a..b", "ä/ö", "猫/😀", "COM1",
    "x" * 255, "*", "[a]", "$HOME", "1/2/3/4/5/6/7/8/9",
    "0190/200x100,fit=cover,gravity=0.3:0.7.webp",
]  # fmt: skip


def test_odd_keys_are_kept_apart(store: BlobStore) -> None:
    odd = [key for key in ODD if len(key) <= (store.capabilities.longest_key or 255)]
    for key in odd:
        store.create(key, key.encode())
    assert _keys(store) == sorted(odd)
    for key in odd:
        assert store.get(key) == key.encode()
        assert store.delete(key) is True
    assert _keys(store) == []


MALFORMED = [
    "a\\b", "", "/", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/.", "./a", ".tmp/x", ".deleted/x", "a/.deleted",
    "a/.hidden", "a\0b", "a\nb", "a\x7fb", "a/\u202eb", "x" * 256, "é" * 128, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("key", MALFORMED)
def test_malformed_keys_are_refused(store: BlobStore, key: str, tmp_path: Path) -> None:
    verbs: list[Callable[[str], object]] = [
        lambda k: store.create(k, b"x"),
        lambda k: store.put(k, b"x"),
        store.get,
        store.head,
        store.delete,
        store.local_path,
    ]
    for verb in (*verbs, check_key):
        with pytest.raises(ValueError, match=r"malformed key|surrogates"):
            verb(key)
    assert _keys(store) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"store"}


@pytest.mark.parametrize("prefix", ["", "/", "../", "a/../", ".tmp/"])
def test_malformed_prefixes_are_refused(store: BlobStore, prefix: str) -> None:
    store.create("a/b", b"x")
    with pytest.raises(ValueError, match="malformed key"):
        store.delete_prefix(prefix)
    assert _keys(store) == ["a/b"]


# --- at the same time ------------------------------------------------------------------------------------------


def test_of_many_creators_exactly_one_wins(store: BlobStore, tmp_path: Path) -> None:
    if not store.capabilities.creates_once:
        pytest.skip("this store says that it cannot")
    threads, rounds = 8, 10
    barrier = threading.Barrier(threads)

    def create(number: int) -> list[bool]:
        won = []
        for turn in range(rounds):
            source: bytes | Path = b"%d" % number * 1000
            if number % 2:  # half of them bring a file
                source = tmp_path / f"{number}-{turn}"
                source.write_bytes(b"%d" % number * 1000)
            barrier.wait(30)
            try:
                store.create(f"race/{turn}", source)
            except BlobExists:
                won.append(False)
            else:
                won.append(True)
        return won

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(create, range(threads)))
    for turn in range(rounds):
        winners = [number for number in range(threads) if results[number][turn]]
        assert len(winners) == 1
        assert store.get(f"race/{turn}") == b"%d" % winners[0] * 1000


def test_readers_see_the_old_blob_or_the_new_one(store: BlobStore) -> None:
    versions = [bytes([n]) * 300_000 for n in range(40)]
    store.put("a/b", versions[0])
    start, stop = threading.Barrier(4), threading.Event()

    def read() -> set[bytes]:
        seen = set()
        start.wait(30)
        while not stop.is_set():
            seen.add(store.get("a/b"))
            assert store.head("a/b").size == 300_000
            assert _keys(store) == ["a/b"]  # and nothing half done
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        start.wait(30)
        try:
            for version in versions:
                store.put("a/b", version)
        finally:
            stop.set()
        seen = set().union(*(reader.result(30) for reader in readers))
    assert seen <= set(versions)


def test_writers_and_deleters_of_one_image_do_not_trip_over_each_other(store: BlobStore) -> None:
    start = threading.Barrier(3)

    def write(name: str) -> None:
        start.wait(30)
        for number in range(60):
            store.put(f"image/{name}{number}", b"x")

    def remove() -> None:
        start.wait(30)
        for _ in range(60):
            store.delete_prefix("image/")

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(write, "a"), pool.submit(write, "b"), pool.submit(remove)]:
            future.result(60)
    store.delete_prefix("image/")
    assert _keys(store) == []


# --- what clients put ------------------------------------------------------------------------------------------


def test_a_client_puts_a_blob_itself_where_the_store_says_so(store: BlobStore) -> None:
    # A key as ours are: object_store signs Azure's addresses wrong where a key must be percent-encoded.
    address = store.upload_address("up/1790000000-of_a-client", expires_s=60)
    assert (address is not None) == store.capabilities.takes_uploads
    if address is None:
        return
    assert address.url not in repr(address)
    for body in (b"first", b"second"):
        httpx.put(address.url, content=body, headers=address.headers, timeout=60).raise_for_status()
        assert store.get("up/1790000000-of_a-client") == body
    other = address.url.replace("of_a-client", "other")
    assert other != address.url
    assert httpx.put(other, content=b"forged", headers=address.headers).status_code == 403
    assert [blob.key for blob in store.list("up/")] == ["up/1790000000-of_a-client"]
