"""Stores, catalogs and disks in bad weather: what clients get, that nothing is lost, and that it mends by itself."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from tests.engine.pictures import encoded, jpg, quadrants
from tests.faults.weather import Proxy, Weather, weather_before
from tests.programs import READER_KEY, Postgres, Program, s3_store
from tests.server.running import begin, stop, wait_until_ready
from tests.waiting import WAIT_S, until

from lazypix import Library
from lazypix.catalog import Catalog
from lazypix.delivery import Delivery
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import Busy, IdentTaken, OriginalDamaged, StoreFailed, StoreFull
from lazypix.http import Answer, Request, StreamBody
from lazypix.originals import uploading
from lazypix.plan import Limits, Probe
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.verifying import verify


def noise(width: int, height: int) -> bytes:
    """Return a PNG that nothing compresses."""
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return encoded(Picture.fromarray(pixels))


NOISE = noise(160, 120)
"""A PNG of some 60 kB: long enough to be cut or damaged on its way."""
SMALL = jpg(quadrants(60, 40))
SOON_S = 25.0
"""No answer takes longer, whatever the weather; most come in a few seconds."""
LONG_S, SHORT_S = "60", "2"
"""Timeouts of the store. The long one is never to be waited for, which would take longer than `SOON_S`; the short one is
for a store that gives no answer, where there is nothing else to wait for."""

STORED = Request(method="GET", path="/image/100x/noise.png")
NEW = Request(method="GET", path="/image/90x/noise.jpg")
ORIGINAL = Request(method="GET", path="/image/noise.png")


@pytest.fixture(autouse=True)
def undone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is undoing anything here: what failed may be sent again without waiting."""
    monkeypatch.setattr(uploading, "UNDO_S", 0.0)


@pytest.fixture
def proxy(seaweedfs: Program) -> Iterator[Proxy]:
    with weather_before(seaweedfs.port) as made:
        yield made


@pytest.fixture
def timeout_s() -> str:
    """For how long the store is waited for, where a test does not say so."""
    return LONG_S


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def patient(seaweedfs: Program, prefix: str, tmp_path: Path) -> Callable[[], Library]:
    """A function that opens the library as one who sees nothing of the weather."""

    def opened() -> Library:
        return Library.open(tmp_path, store=s3_store(seaweedfs, prefix), engine=ThreadEngine(2), facts_ttl_s=0)

    return opened


@pytest.fixture
def library(
    seaweedfs: Program, proxy: Proxy, prefix: str, patient: Callable[[], Library], timeout_s: str, tmp_path: Path
) -> Iterator[Library]:
    """A library whose S3 store is behind the weather, with an image and a variant of it stored."""
    with patient() as before:
        before.add(NOISE, ident="noise")
        before.variant("noise", "100x", format="png")
    store = s3_store(seaweedfs, prefix, port=proxy.port, timeout=timeout_s, retries="1")
    with Library.open(tmp_path, store=store, engine=ThreadEngine(2), facts_ttl_s=0) as opened:
        yield opened
        proxy.change("fair")


def answered(library: Library, request: Request) -> Answer:
    """Answer as a process does that has nothing in its memory; in a bounded time."""
    begun = time.monotonic()
    answer = Delivery(library).answer(request)
    assert time.monotonic() - begun < SOON_S
    return answer


def header(answer: Answer, name: bytes) -> bytes | None:
    return dict(answer.headers).get(name)


@pytest.mark.parametrize(
    ("weather", "timeout_s"), [("down", LONG_S), ("hanging", SHORT_S), ("errors", LONG_S), ("cut", LONG_S)]
)  # fmt: skip
def test_a_store_that_fails_is_told_and_nothing_is_lost(
    library: Library, proxy: Proxy, patient: Callable[[], Library], weather: Weather
) -> None:
    warm = Delivery(library, cache_ttl_s=600)
    until(lambda: warm.answer(STORED).status == 200)
    proxy.change(weather)
    assert warm.answer(STORED).status == 200, "what is in memory is served"
    for request in (STORED, NEW, ORIGINAL):
        answer = answered(library, request)
        assert answer.status == 503, request.path
        assert int(header(answer, b"retry-after") or 0) > 0
    if weather != "cut":  # an upload has no long answer
        begun = time.monotonic()
        with pytest.raises(StoreFailed):
            library.add(SMALL, ident="new")
        assert time.monotonic() - begun < SOON_S
        begun = time.monotonic()
        with pytest.raises(StoreFailed):
            library.check()
        assert time.monotonic() - begun < SOON_S
    proxy.change("fair")
    for request in (STORED, NEW, ORIGINAL):
        until(lambda: answered(library, request).status == 200, WAIT_S, lambda: request.path)  # noqa: B023
    until(lambda: _succeeds(library.check), WAIT_S)
    if weather != "cut":
        _add_in_the_end(library)
    library.close()
    with patient() as after:
        after.sweep(older_than_s=0)
        assert [p for p in verify(after) if p.kind != "variant missing"] == []


def _add_in_the_end(library: Library) -> None:
    """Add an image as a client does that tries until it is there; an attempt that failed late may have stored it."""
    failed = False

    def is_added() -> bool:
        nonlocal failed
        try:
            library.add(SMALL, ident="new")
        except StoreFailed:
            failed = True
            return False
        except IdentTaken:
            assert failed, "it was not there before"
            return answered(library, Request(method="GET", path="/image/new.jpg")).body == SMALL
        return True

    until(is_added, WAIT_S, lambda: "the client tries again")


def _succeeds(what: Callable[[], object]) -> bool:
    try:
        what()
    except StoreFailed:
        return False
    return True


def test_an_upload_that_is_being_undone_is_not_taken_over_by_the_next(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undoing of the first one may still reach the store, and would take the second one's blob."""
    monkeypatch.setattr(uploading, "UNDO_S", 180.0)

    def fail(*_: object) -> int:
        raise StoreFailed("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(library.store, "create", fail)
        patched.setattr(library.store, "delete_prefix", fail)
        with pytest.raises(StoreFailed):
            library.add(SMALL, ident="new")
    with pytest.raises(Busy, match="being undone"):
        library.add(SMALL, ident="new")
    monkeypatch.setattr(uploading, "UNDO_S", 0.0)
    assert library.add(SMALL, ident="new").ident == "new"


def test_a_slow_store_is_waited_for(library: Library, proxy: Proxy) -> None:
    proxy.change("slow")
    assert answered(library, ORIGINAL).body == NOISE
    assert library.add(SMALL, ident="new").sha256 == hashlib.sha256(SMALL).hexdigest()


@pytest.mark.parametrize("request_", [ORIGINAL, STORED, NEW], ids=["original", "stored", "new"])
def test_flipped_bits_are_never_served(library: Library, proxy: Proxy, request_: Request) -> None:
    good = answered(library, request_).body
    library.variant("noise", "90x", format="jpg")  # returns when it is stored
    library.store.delete("noise/90x.jpg")
    proxy.change("flipped")
    assert answered(library, request_).status == 503
    proxy.change("fair")
    library.catalog.health.mark("noise", damaged=False)  # as a scrub does that finds it whole
    library.originals.forget("noise")
    assert answered(library, request_).body == good


def test_a_large_original_that_is_damaged_is_broken_off(tmp_path: Path) -> None:
    large = noise(800, 700)
    assert len(large) > 1_500_000
    store = MemoryStore()
    with Library.open(tmp_path, store=store, engine=ThreadEngine(1)) as library:
        library.add(large, ident="large")
        store.put("large/origin.png", large[:-1000] + bytes([large[-1000] ^ 1]) + large[-999:])
        answer = Delivery(library).answer(Request(method="GET", path="/image/large.png"))
        assert answer.status == 200
        assert isinstance(answer.body, StreamBody)
        pieces = answer.body.read(0, len(large))
        received = len(next(pieces))
        assert received < len(large), "nobody takes it for whole"
        with pytest.raises(OriginalDamaged):
            next(pieces)
        assert library.get("large").damaged


def test_who_may_only_read_the_store_serves_what_is_there(
    seaweedfs: Program, library: Library, prefix: str, tmp_path: Path
) -> None:
    reader = s3_store(seaweedfs, prefix, access_key=READER_KEY, retries="0")
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    with Library.open(tmp_path / "two", catalog=catalog, store=reader, engine=ThreadEngine(1)) as second:
        for request in (STORED, ORIGINAL, NEW):
            assert answered(second, request).status == 200, request.path
        with pytest.raises(StoreFailed, match="AccessDenied"):
            second.add(SMALL, ident="new")
    assert [image.ident for image in library.list()] == ["noise"]


def test_wrong_credentials_are_told_without_telling_them(seaweedfs: Program) -> None:
    store = s3_store(seaweedfs, access_key="stranger", retries="0")
    with pytest.raises(StoreFailed, match="InvalidAccessKeyId") as refused:
        store.check()
    assert "stranger" not in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)


# --- the catalog -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weather", ["down", "hanging"])
def test_a_catalog_that_is_away_is_told_and_comes_back(
    postgres: Postgres, new_database: Callable[[], str], tmp_path: Path, weather: Weather
) -> None:
    database = new_database().rpartition("/")[2]
    with weather_before(postgres.program.port) as proxy:
        catalog = Catalog.open(f"postgresql://lazypix@127.0.0.1:{proxy.port}/{database}")
        with Library.open(tmp_path, catalog=catalog, engine=ThreadEngine(1), facts_ttl_s=0) as library:
            library.add(NOISE, ident="noise")
            library.variant("noise", "100x", format="png")
            warm = Delivery(library, cache_ttl_s=600)
            assert warm.answer(STORED).status == 200
            proxy.change(weather)
            assert warm.answer(STORED).status == 200
            answer = answered(library, NEW)
            assert (answer.status, header(answer, b"retry-after")) == (503, b"5")
            with pytest.raises(StoreFailed):
                library.add(SMALL, ident="new")
            proxy.change("fair")
            assert answered(library, NEW).status == 200
            assert library.add(SMALL, ident="new").ident == "new"
            library.variant("noise", "90x", format="jpg")  # returns when it is stored
            assert list(verify(library)) == []


def test_a_variant_is_delivered_when_the_catalog_cannot_record_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        library.add(NOISE, ident="noise")

        def fail(_: object) -> set[str]:
            raise StoreFailed("The catalog is not available")

        monkeypatch.setattr(library.catalog.variants, "add", fail)
        assert answered(library, NEW).status == 200
        monkeypatch.undo()
        assert library.variants("noise") == []
        assert list(verify(library)) == [], "without a row it was not stored"


def test_a_locked_catalog_is_waited_for(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        other = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(1.0, lambda: other.execute("COMMIT"))
        timer.start()
        try:
            assert library.add(SMALL, ident="new").ident == "new"
        finally:
            timer.join()
            other.close()


# --- the disk and the clock ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can make a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_during_an_upload_is_507_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    settings = {"store": f"file://{small_disk}/images"}
    (small_disk / "data").mkdir()
    for data in (tmp_path / "data", small_disk / "data"):  # the store is full, or everything is
        server = begin(data, **settings)
        try:
            wait_until_ready(server)
            server.upload(SMALL, ident=f"kept-{data.parent.name}")
            large = noise(1000, 1000)
            with server.client() as client:
                answer = client.post("/upload", files={"image": ("a.png", large)}, data={"ident": "large"})
                assert (answer.status_code, answer.json()["status"]) == (507, "error")
                assert client.get("/image/large.png").status_code == 404
                assert client.get(f"/image/kept-{data.parent.name}.jpg").content == SMALL
            again = server.upload(SMALL, ident=f"again-{data.parent.name}")
            assert server.get(f"/image/{again}.jpg").content == SMALL
        finally:
            stop(server)
        assert list((data / "incoming").iterdir()) == []
        assert list((small_disk / "images" / ".tmp").iterdir()) == []
        with Library.open(data, store=f"file://{small_disk}/images") as library:
            assert [p for p in verify(library) if p.kind != "unknown image"] == []


@pytest.mark.parametrize("skew_s", [-1800, 1800])
def test_a_machine_whose_clock_is_wrong_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew_s: int
) -> None:
    """Half an hour either way; what is older than an hour is swept."""
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        library.add(SMALL, ident="there")
        library.variant("there", "20x")
        image = library.get("there")
        library.catalog.claim(
            type(image)(ident="under-way", sha256="", size=1, probe=image.probe, created=image.created)
        )
        now, now_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: now() + skew_s)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() + skew_s * 10**9)
        library.sweep()
        library.catalog.publish("under-way")
        assert Delivery(library).answer(Request(method="GET", path="/image/20x/there.jpg")).status == 200
        assert library.add(SMALL).ident


def test_an_upload_that_waits_too_long_for_a_renderer_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    class Stuck(ThreadEngine):
        def inspect(self, path: str, limits: Limits) -> Future[Probe]:
            return Future()

    with Library.open(tmp_path, engine=Stuck(1), patience_s=0.2) as library:
        with pytest.raises(Busy, match="nothing was stored"):
            library.add(SMALL, ident="new")
        assert list((tmp_path / "incoming").iterdir()) == []
        assert library.catalog.unfinished() == []


def test_a_full_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        library.add(NOISE, ident="noise")

        def full(*_: object, **__: object) -> None:
            raise StoreFull("No space left")

        monkeypatch.setattr(library.store, "put", full)
        assert answered(library, NEW).status == 200, "a variant is delivered all the same"
