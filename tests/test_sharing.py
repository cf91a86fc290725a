"""Answers that two machines share through a real Redis or memcached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests import programs
from tests.engine.pictures import jpg, quadrants
from tests.programs import Program
from tests.waiting import WAIT_S, until
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.answers import SharedAnswers
from lazypix.cache.opening import open_cache
from lazypix.catalog import Catalog
from lazypix.delivery import Delivery
from lazypix.engine.threads import ThreadEngine
from lazypix.http import Answer, Request
from lazypix.stores.memory import MemoryStore

JPG = jpg(quadrants(120, 80))
SMALL = Request(method="GET", path="/image/60x/cat.jpg")
NEGOTIATED = Request(method="GET", path="/image/60x/cat.auto", accept="image/webp")


class Machine:
    """A library with a folder of its own; store, catalog and cache are common."""

    def __init__(self, folder: Path, common: Path, store: MemoryStore, cache: str) -> None:
        self.store = WrappedStore(store)
        self.library = Library.open(
            folder, catalog=Catalog.sqlite(common / "catalog.sqlite"), store=self.store, engine=ThreadEngine(1),
            shared=SharedAnswers(open_cache(cache, timeout_s=WAIT_S), ttl_s=600), facts_ttl_s=0.0,
        )  # fmt: skip
        self.delivery = Delivery(self.library, cache_ttl_s=0.0)

    def get(self, request: Request = SMALL) -> Answer:
        return self.delivery.answer(request)


def timing(answer: Answer) -> str:
    return dict(answer.headers)[b"server-timing"].decode()


@pytest.fixture(params=["redis", "memcached"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    with (programs.redis if request.param == "redis" else programs.memcached)(tmp_path) as program:
        yield program


@pytest.fixture
def machines(cache: Program, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    kind = request.node.callspec.params["cache"]
    url = f"{kind}://{cache.address}" + ("/0" if kind == "redis" else "")
    store = MemoryStore()
    with ExitStack() as stack:
        made = [Machine(tmp_path / name, tmp_path, store, url) for name in ("one", "two")]
        for machine in made:
            stack.callback(machine.library.close)
        made[0].library.add(JPG, ident="cat")
        yield made[0], made[1]


def test_one_machine_makes_it_and_the_other_finds_it(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    for request in (SMALL, NEGOTIATED):
        made = one.get(request)
        assert "render" in timing(made)
        until(lambda request=request: "shared" in timing(two.get(request)))  # type: ignore[misc]
        two.store.calls.clear()
        found = two.get(request)
        assert (found.status, found.body) == (200, made.body)
        assert two.store.calls == [], "the store was not asked"
        tag = dict(found.headers)[b"etag"].decode()
        again = Request(method="GET", path=request.path, accept=request.accept, if_none_match=tag)
        assert two.get(again).status == 304


def test_a_deletion_on_one_machine_ends_it_on_the_other(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.get()
    until(lambda: "shared" in timing(two.get()))
    one.library.delete("cat")
    assert two.get().status == 404
    assert one.get().status == 404


def test_a_dead_cache_breaks_nothing_and_is_used_again_when_it_is_back(
    machines: tuple[Machine, Machine], cache: Program
) -> None:
    one, two = machines
    one.get()
    until(lambda: "shared" in timing(two.get()))
    cache.kill()
    for _ in range(3):
        assert two.get().status == 200
        assert one.get(NEGOTIATED).status == 200
    assert one.library.add(JPG, ident="dog").ident == "dog"
    one.library.delete("dog")
