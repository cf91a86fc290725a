"""A replica on Beansdb servers, which list nothing by prefix and know short keys alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.fakes.beansdb import MAX_KEY, FakeBeansdb
from tests.jobs.test_replicating import NAMED, carry_out_all

from lazypix import Library
from lazypix.composition import make_replicas
from lazypix.engine.threads import ThreadEngine
from lazypix.jobs.replicating import Replicating
from lazypix.orders import Wish
from lazypix.settings import load
from lazypix.upkeep.cleaning import purge
from lazypix.upkeep.mirroring import Mirror, compare, repair

JPG = jpg(quadrants())
LAYOUTS = {
    "own": {},
    "seed": {"layout": "imageserver"},
    "templates": {"original": "o/{ident}.{ext}", "variant": "v/{width}x{height}/{ident}.jpg"},
}
ORIGINALS = {"own": "cat/origin.jpg", "seed": "image/cat.jpg", "templates": "o/cat.jpg"}
SIZES = {
    "own": "cat/60x30,fit=cover,quality=90.jpg", "seed": "image/60/cat.jpg", "templates": "v/60x30/cat.jpg",
}  # fmt: skip


@pytest.fixture
def servers() -> Iterator[list[FakeBeansdb]]:
    with FakeBeansdb(split=4) as one, FakeBeansdb(split=4) as other:
        yield [one, other]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def library(tmp_path: Path, servers: list[FakeBeansdb], layout: str) -> Iterator[Library]:
    store = f"beansdb://{','.join(server.address for server in servers)}?copies=2"
    settings = load({"replicas": [{"name": "beans", "store": store, "what": "all"} | LAYOUTS[layout]]}, {})
    with Library.open(tmp_path, engine=ThreadEngine(2), replicas=make_replicas(settings)) as opened:
        for ident in ("cat", "dog"):
            opened.add(JPG, ident=ident)
            opened.order(opened.get(ident), Wish(sizes=(NAMED,)))
        assert carry_out_all(opened) == []
        yield opened


def found(library: Library) -> set[tuple[str, str]]:
    differences = compare(Mirror(library, library.replicas[0]), library, contents=True)
    return {(difference.kind, difference.key) for difference in differences}


def live(server: FakeBeansdb) -> list[str]:
    return sorted(key.decode() for key, record in server.records.items() if record.version > 0)


def test_what_is_put_comes_back_and_every_server_has_it(
    library: Library, servers: list[FakeBeansdb], layout: str
) -> None:
    store = library.replicas[0].store
    assert store.get(ORIGINALS[layout]) == JPG
    assert store.get(SIZES[layout]) == library.variant("cat", NAMED).body
    assert len(live(servers[0])) == 4
    assert live(servers[0]) == live(servers[1])


def test_a_deletion_and_a_purge_remove_what_they_shall_by_keys_alone(
    library: Library, servers: list[FakeBeansdb], layout: str
) -> None:
    purge(library, ident="dog")
    assert carry_out_all(library) == []
    assert len(live(servers[0])) == 3
    library.delete("cat")
    assert carry_out_all(library) == []
    (left,) = live(servers[0])
    assert "dog" in left
    assert live(servers[1]) == [left]
    assert found(library) == set()


def test_status_and_repair_list_it_by_walking(library: Library, servers: list[FakeBeansdb], layout: str) -> None:
    assert found(library) == set()
    store = library.replicas[0].store
    body = store.get(SIZES[layout])
    store.delete(ORIGINALS[layout])
    store.put(SIZES[layout], body[:-1] + bytes([body[-1] ^ 1]))
    assert found(library) == {("missing", ORIGINALS[layout]), ("different", SIZES[layout])}
    mended = {difference.key: error for difference, error in repair(library_mirror(library), library, contents=True)}
    assert mended == {ORIGINALS[layout]: None, SIZES[layout]: None}
    assert found(library) == set()
    assert store.get(SIZES[layout]) == body


def test_one_server_that_is_away_holds_up_its_copies_until_it_is_back(
    library: Library, servers: list[FakeBeansdb], layout: str
) -> None:
    servers[1].stop()
    library.add(JPG, ident="owl")
    (error,) = carry_out_all(library)
    assert "Beansdb" in error
    servers[1].start()
    (job,) = library.catalog.jobs.find()
    assert job.state == "later"
    Replicating(library, library.replicas[0]).carry_out(job)
    library.catalog.jobs.drop(ids=[job.id])
    assert [key for key in live(servers[1]) if "owl" in key] == [ORIGINALS[layout].replace("cat", "owl")]
    assert found(library) == set()


def test_the_longest_ident_has_keys_that_it_takes(library: Library, servers: list[FakeBeansdb], layout: str) -> None:
    ident = "a" * 64
    library.add(JPG, ident=ident)
    library.variant(ident, NAMED)
    assert carry_out_all(library) == []
    assert found(library) == set()
    assert max(len(key) for key in servers[0].records) <= MAX_KEY


def library_mirror(library: Library) -> Mirror:
    return Mirror(library, library.replicas[0])
