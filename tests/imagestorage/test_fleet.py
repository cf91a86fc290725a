"""What processes tell each other by memcached, and what is left of that without it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.programs import Program, memcached
from tests.waiting import WAIT_S

from imagestorage.fleet import Fleet, close_all, fleet_of
from lazypix.cache.opening import open_cache
from lazypix.errors import SettingsError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with memcached(tmp_path_factory.mktemp("memcached")) as program:
        yield program


@pytest.fixture
def fleet() -> Iterator[Callable[[Program], Fleet]]:
    """Makes what one process knows."""
    made = []

    def make(server: Program) -> Fleet:
        made.append(Fleet(open_cache(f"memcached://{server.address}?prefix=imagestorage:", timeout_s=WAIT_S)))
        return made[-1]

    yield make
    for own in made:
        own.close()


def test_of_many_that_ask_at_once_one_has_it_stored(server: Program, fleet: Callable[[Program], Fleet]) -> None:
    fleets, together = [fleet(server) for _ in range(4)], threading.Barrier(16)

    def begin(number: int) -> bool:
        together.wait(WAIT_S)
        return fleets[number % 4].begin_storing("once/200x100.jpg")

    with ThreadPoolExecutor(16) as all_at_once:
        assert sorted(all_at_once.map(begin, range(16))) == [False] * 15 + [True]
    assert fleets[0].begin_storing("other/200x100.jpg")


def test_what_one_found_all_know(server: Program, fleet: Callable[[Program], Fleet]) -> None:
    one, other = fleet(server), fleet(server)
    assert not other.is_stored("found/200x100.jpg")
    one.remember_stored("found/200x100.jpg")
    assert one.is_stored("found/200x100.jpg")
    assert other.is_stored("found/200x100.jpg")


def test_without_memcached_each_knows_for_itself(tmp_path: Path, fleet: Callable[[Program], Fleet]) -> None:
    with memcached(tmp_path) as program:
        one, other = fleet(program), fleet(program)
        assert one.begin_storing("a")
        program.kill()
        assert [one.begin_storing("b"), other.begin_storing("b"), one.begin_storing("b")] == [True, True, False]
        one.remember_stored("b")
        assert (one.is_stored("b"), other.is_stored("b")) == (True, False)


def test_a_process_has_one_fleet_for_the_same_servers_and_a_forked_one_its_own() -> None:
    own = fleet_of(["127.0.0.1:11211"])
    assert fleet_of(("127.0.0.1:11211",)) is own
    assert fleet_of() is not own
    pid = os.fork()
    if pid == 0:
        os._exit(0 if fleet_of(["127.0.0.1:11211"]) is not own else 1)
    assert os.waitpid(pid, 0)[1] == 0
    close_all()
    assert fleet_of(["127.0.0.1:11211"]) is not own
    close_all()


@pytest.mark.parametrize("host", ["/run/memcached.sock", "127.0.0.1:port", "me:word@host:1"])
def test_a_malformed_host_is_said(host: str) -> None:
    with pytest.raises(SettingsError, match="The URL of the cache is wrong"):
        fleet_of([host])
