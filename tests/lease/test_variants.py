"""Variants made under leases by several machines: once, stored by whose turn it is, and never blocked for long."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.waiting import WAIT_S, signal_and_wait, wait
from tests.watched import WatchedEngine

from lazypix import Library
from lazypix.catalog import Catalog, StoredVariant
from lazypix.lease import Lease, LeaseFailed
from lazypix.lease.catalog import CatalogLeases
from lazypix.plan import Plan
from lazypix.stores.local import LocalStore
from lazypix.transform import Transform

KEY = "cat/60x.jpg"
Machine = tuple[Library, WatchedEngine]
FAR = 2**60
"""A greater number than any of these years."""


class OtherEngine(WatchedEngine):
    """An engine as of another version: its results are as good, and not the same bytes."""

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        done: Future[bytes] = Future()
        done.set_result(super().render(path, plan).result(WAIT_S) + b"of another version")
        return done


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """A function that makes a machine: a folder of its own over one store and one catalog."""
    with ExitStack() as stack:

        def make(name: str, engine: WatchedEngine | None = None, **options: Any) -> Machine:
            catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
            engine = engine or WatchedEngine()
            parts: dict[str, Any] = {"leases": CatalogLeases(catalog), "tidies": False, "lease_s": 600.0} | options
            store = LocalStore(tmp_path / "images")
            library = Library.open(tmp_path / name, catalog=catalog, store=store, engine=engine, **parts)
            return stack.enter_context(library), engine

        yield make


@pytest.fixture
def one(machine: Callable[..., Machine]) -> Machine:
    made = machine("one")
    made[0].add(jpg(quadrants()), ident="cat")
    return made


def _row(library: Library) -> StoredVariant:
    (row,) = library.variants("cat")
    return row


def _taken(library: Library, key: str = KEY) -> Lease:
    lease = CatalogLeases(library.catalog).take(key, ttl_s=600)
    assert lease is not None
    return lease


def test_machines_that_are_asked_at_once_render_once(one: Machine, machine: Callable[..., Machine]) -> None:
    machines = [one, machine("two"), machine("three")]
    barrier = threading.Barrier(18)

    def ask(number: int) -> bytes:
        barrier.wait(WAIT_S)
        return machines[number % 3][0].variant("cat", "60x").body

    with ThreadPoolExecutor(18) as pool:
        assert len(set(pool.map(ask, range(18)))) == 1
    assert sum(len(engine.rendered) for _, engine in machines) == 1
    assert _row(one[0]).fence > 0
    assert _taken(one[0]).fence > _row(one[0]).fence, "the lease was given back"


def test_who_waits_finds_what_is_there_though_the_lease_is_not_given_back(
    one: Machine, machine: Callable[..., Machine]
) -> None:
    two, engine = machine("two")
    _taken(two)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(two.variant, "cat", "60x")
        one[0].store.put(KEY, b"made by one that died before it gave the lease back")
        assert asked.result(WAIT_S).body.startswith(b"made by one")
    assert engine.rendered == []


def test_who_is_out_of_patience_renders_for_itself_and_stores_nothing(
    one: Machine, machine: Callable[..., Machine]
) -> None:
    two, engine = machine("two", patience_s=0.1)
    _taken(two)
    made = two.variant("cat", "60x")
    assert len(engine.rendered) == 1
    assert not made.turn.is_ours(), "nor is it shared with others"
    assert two.variants("cat") == []
    assert [blob.key for blob in two.store.list("cat/")] == ["cat/origin.jpg"]


def test_a_row_left_by_a_holder_that_was_killed_before_its_blob_holds_up_nobody(one: Machine) -> None:
    library, _ = one
    killed = _taken(library, "another key")
    row = StoredVariant(
        stem="60x", format="jpg", size=1, created=datetime.now(UTC), sha256="0" * 64, fence=killed.fence
    )
    library.catalog.variants.add([("cat", row)])
    body = library.variant("cat", "60x").body
    assert library.store.get(KEY) == body
    assert _row(library).sha256 == hashlib.sha256(body).hexdigest()
    assert _row(library).fence > killed.fence


def test_numbers_that_went_back_hold_up_nobody(one: Machine) -> None:
    library, _ = one
    row = StoredVariant(stem="60x", format="jpg", size=1, created=datetime.now(UTC), sha256="0" * 64, fence=FAR)
    library.catalog.variants.add([("cat", row)])
    body = library.variant("cat", "60x").body
    assert library.store.get(KEY) == body
    assert (_row(library).fence, _row(library).sha256) == (FAR + 1, hashlib.sha256(body).hexdigest())


class Unconfirmed(CatalogLeases):
    """Leases whose server has gone away when it is asked again, or has given the lease to another."""

    answer: bool | None = None

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        if self.answer is None:
            raise LeaseFailed("no answer")
        return self.answer


@pytest.mark.parametrize("answer", [None, False])
def test_a_later_row_stays_unless_the_lease_is_confirmed(
    one: Machine, machine: Callable[..., Machine], answer: bool | None
) -> None:
    leases = Unconfirmed(one[0].catalog)
    leases.answer = answer
    two, engine = machine("two", leases=leases)
    row = StoredVariant(stem="60x", format="jpg", size=1, created=datetime.now(UTC), sha256="0" * 64, fence=FAR)
    two.catalog.variants.add([("cat", row)])
    two.variant("cat", "60x")
    assert len(engine.rendered) == 1
    assert replace(_row(two), used=None) == replace(row, used=None, created=_row(two).created)
    assert [blob.key for blob in two.store.list("cat/")] == ["cat/origin.jpg"]


def test_a_blob_that_is_there_stays_and_the_row_says_what_it_is(
    one: Machine, machine: Callable[..., Machine]
) -> None:
    """Two holders as of two versions: the first stored its blob when the second had looked already."""
    library, engine = machine("two", OtherEngine())
    first = b"what the first one made"
    engine.before = lambda: library.store.put(KEY, first)
    made = library.variant("cat", "60x").body
    assert made.endswith(b"of another version")
    assert library.store.get(KEY) == first
    assert (_row(library).size, _row(library).sha256) == (len(first), hashlib.sha256(first).hexdigest())


def test_closing_does_not_wait_for_other_machines(machine: Callable[..., Machine], one: Machine) -> None:
    two, _ = machine("two")
    _taken(two)
    waiting = two.make(two.get("cat"), Transform(width=60, format="jpg"))
    assert not waiting.delivered.done()
    two.close()
    assert "Shutting down" in str(waiting.delivered.exception(WAIT_S))


def test_a_variant_is_delivered_before_it_is_stored(one: Machine) -> None:
    library, _ = one
    recording, go_on = threading.Event(), threading.Event()
    add = library.catalog.variants.add

    def slow(rows: Any) -> Any:
        signal_and_wait(recording, go_on)
        return add(rows)

    library.catalog.variants.add = slow  # type: ignore[method-assign]
    image = library.get("cat")
    flight = library.make(image, Transform(width=60, format="jpg"))
    assert flight.delivered.result(WAIT_S).turn.is_ours()
    wait(recording)
    assert CatalogLeases(library.catalog).take(KEY, ttl_s=600) is None, "it is held until the variant is stored"
    go_on.set()
    flight.landed.result(WAIT_S)
    assert _taken(library).fence > _row(library).fence


@pytest.mark.parametrize("number", [30, 120])
def test_what_others_make_holds_up_nothing_else(one: Machine, machine: Callable[..., Machine], number: int) -> None:
    two, engine = machine("two", patience_s=600.0)
    cat = two.get("cat")
    sizes = [Transform(width=width, format="jpg") for width in range(100, 100 + number)]
    held = [_taken(one[0], two.shelf.key("cat", size)) for size in sizes]
    flights = [two.make(cat, size, background=turn % 2 > 0) for turn, size in enumerate(sizes)]
    assert two.make(cat, Transform(width=60, format="jpg")).delivered.result(WAIT_S).body
    assert two.make(cat, Transform(width=61, format="jpg"), background=True).delivered.result(WAIT_S).body
    for lease in held:
        CatalogLeases(one[0].catalog).release(lease)
    assert all(flight.delivered.result(WAIT_S).body for flight in flights)
    assert len(engine.rendered) == number + 2


def test_a_catalog_that_other_machines_can_use_gives_leases_unless_others_are_given(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    address = new_database()
    with Library.open(tmp_path, catalog=address, engine=WatchedEngine()) as library:
        library.add(jpg(quadrants()), ident="cat")
        library.variant("cat", "60x")
    with Library.open(tmp_path, catalog=address, engine=WatchedEngine(), leases=None) as library:
        library.variant("cat", "61x")
        assert [variant.fence > 0 for variant in library.variants("cat")] == [True, False]
