"""Deleted on one machine, gone on all: while they are asked for it all the time, and have it in memory for long.

Memories are believed for minutes here, so that it is the news that ends them, and not their time to live.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from tests import programs
from tests.engine.pictures import jpg, noise
from tests.fleet.machines import machines, shared_settings
from tests.programs import Program
from tests.server.running import Server
from tests.waiting import WAIT_S, until

from lazypix.changes.feed import NOTICED_S

PICTURE = jpg(noise(80, 60))
TTL_S = "600"
SLOW_S = 4.0
"""What a machine may need that stands still now and then; less than it takes to notice a connection that hangs."""
AT_ONCE_S = SLOW_S
"""While the feed is connected: milliseconds."""
AFTER_CUT_S = 1.0 + SLOW_S
"""Connecting again begins within a tenth of a second."""
AFTER_HANG_S = NOTICED_S + SLOW_S
WATCHED_S = 1.0
"""How long it is looked whether what was gone comes back."""
ALIVE = {200, 304}


@dataclass(slots=True)
class Hammer:
    """Asks one server for an image, again and again, and notes when each answer was asked for, and its status."""

    server: Server
    target: str
    answers: list[tuple[float, int]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def work(self, ending: threading.Event, headers: dict[str, str]) -> None:
        try:
            with self.server.client() as client:
                while not ending.is_set():
                    begun = time.monotonic()
                    self.answers.append((begun, client.get(self.target, headers=headers).status_code))
        except httpx.HTTPError as error:
            self.errors.append(error)

    def since(self, moment: float) -> list[int]:
        return [status for begun, status in list(self.answers) if begun >= moment]

    def gone_at(self) -> float | None:
        """When the first answer was asked for that said so."""
        return next((begun for begun, status in list(self.answers) if status == 404), None)


@contextmanager
def hammered(servers: list[Server], ident: str) -> Iterator[list[Hammer]]:
    """Have the image in every server's memory, and asked for by two clients of each: one as new, one that has it."""
    target = f"/image/40x/{ident}.jpg"
    hammers, threads, ending = [], [], threading.Event()
    for server in servers:
        until(lambda: "cache;desc=hit" in server.get(target).headers["server-timing"])  # noqa: B023
        tag = server.get(target).headers["etag"]
        for headers in ({}, {"if-none-match": tag}):
            hammer = Hammer(server, target)
            hammers.append(hammer)
            threads.append(threading.Thread(target=hammer.work, args=(ending, headers)))
    try:
        for thread in threads:
            thread.start()
        for number, hammer in enumerate(hammers):
            wanted = 304 if number % 2 else 200
            until(lambda: [status for _, status in hammer.answers][:5] == [wanted] * 5)  # noqa: B023
        yield hammers
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)
    assert [hammer.errors for hammer in hammers] == [[]] * len(hammers)


def delete_and_watch(
    servers: list[Server],
    bound_s: float,
    *,
    before: Callable[[], None] = lambda: None,
    told: Callable[[], bool] = lambda: True,
) -> bool:
    """Delete on the first; the others must answer 404 within the bound, and nothing else ever after.

    Return whether that was tried: not when the others were not `told`.
    """
    ident = servers[0].upload(PICTURE)
    with hammered(servers[1:], ident) as hammers:
        before()
        assert httpx.delete(f"{servers[0].url}/image/{ident}", timeout=60).status_code == 200
        deleted = time.monotonic()
        if not told():
            return False
        for hammer in hammers:
            until(lambda: hammer.gone_at() is not None, bound_s + WAIT_S)  # noqa: B023
        watched = time.monotonic() + WATCHED_S
        until(lambda: all(len(hammer.since(watched)) > 20 for hammer in hammers), WAIT_S)
    for hammer in hammers:
        gone_at = hammer.gone_at()
        assert gone_at is not None
        assert gone_at - deleted < bound_s
        statuses = [status for _, status in hammer.answers]
        assert ALIVE.isdisjoint(statuses[statuses.index(404) :])
        assert set(statuses) <= ALIVE | {404}
    return True


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def fleet(seaweedfs: Program, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three machines that hear of changes from PostgreSQL."""
    settings = shared_settings(seaweedfs, database, cache_ttl_s=TTL_S, renderers="1")
    with machines(tmp_path_factory.mktemp("fleet"), 3, **settings) as servers:
        yield servers


def cut_listeners(database: str) -> None:
    """Close the connections on which the machines hear, as an administrator does."""
    listening = "FROM pg_stat_activity WHERE application_name = 'lazypix changes' AND datname = current_database()"
    with psycopg.connect(database, autocommit=True) as connection:
        until(lambda: connection.execute(f"SELECT count(*) {listening}".encode()).fetchone() == (3,), WAIT_S)
        connection.execute(f"SELECT pg_terminate_backend(pid) {listening}".encode())


def test_deleted_on_one_machine_is_gone_on_all(fleet: list[Server]) -> None:
    delete_and_watch(fleet, AT_ONCE_S)


def test_so_it_is_when_the_listeners_were_cut_off_just_before(fleet: list[Server], database: str) -> None:
    delete_and_watch(fleet, AFTER_CUT_S, before=lambda: cut_listeners(database))
    for server in fleet:
        until(lambda: "heard again" in server.log.read_text())  # noqa: B023


def test_a_purged_variant_is_made_anew_by_all(fleet: list[Server]) -> None:
    ident = fleet[0].upload(PICTURE)
    target = f"/image/30x/{ident}.jpg"
    for server in fleet:
        until(lambda: "cache;desc=hit" in server.get(target).headers["server-timing"])  # noqa: B023
    until(lambda: _variants(fleet[0], ident) == 1)
    assert httpx.delete(f"{fleet[0].url}/variants/{ident}", timeout=WAIT_S).status_code == 200
    assert _variants(fleet[0], ident) == 0
    until(lambda: "cache;desc=hit" not in fleet[1].get(target).headers["server-timing"])
    until(lambda: _variants(fleet[0], ident) == 1)
    until(lambda: "cache;desc=hit" not in fleet[2].get(target).headers["server-timing"])


def _variants(server: Server, ident: str) -> int:
    return len(httpx.get(f"{server.url}/info/{ident}", timeout=WAIT_S).json()["content"]["variants"])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with programs.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def by_redis(
    seaweedfs: Program, new_database: Callable[[], str], redis: Program, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """Two machines that hear of changes from Redis."""
    more = {"changes": f"redis://{redis.address}/0", "cache_ttl_s": TTL_S, "renderers": "1"}
    settings = shared_settings(seaweedfs, new_database(), **more)
    with machines(tmp_path_factory.mktemp("by-redis"), 2, **settings) as servers:
        yield servers


def test_deleted_is_gone_by_way_of_redis(by_redis: list[Server]) -> None:
    assert any(delete_and_watch(by_redis, AT_ONCE_S, told=lambda: _publishes(by_redis[0])) for _ in range(5))


def test_a_feed_that_hangs_is_noticed_in_time(by_redis: list[Server], redis: Program) -> None:
    try:
        delete_and_watch(by_redis, AFTER_HANG_S, before=redis.pause)
    finally:
        redis.resume()
    until(lambda: _heard_again(by_redis), WAIT_S)
    assert any(delete_and_watch(by_redis, AFTER_CUT_S, told=lambda: _publishes(by_redis[0])) for _ in range(5))


def _publishes(server: Server) -> bool:
    """Whether Redis took what was published last: it may stand still for longer than it is waited for."""
    log = server.log.read_text()
    return log.rfind("changes cannot be published") <= log.rfind("changes are published again")


def _heard_again(servers: list[Server]) -> bool:
    return all("heard again" in server.log.read_text() for server in servers)


def test_deleted_is_gone_on_machines_that_share_a_sqlite_file(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    settings = {
        "catalog": f"sqlite:///{tmp_path}/shared/catalog.sqlite", "store": f"file://{tmp_path}/shared/images",
        "cache_ttl_s": TTL_S, "renderers": "1",
    }  # fmt: skip
    with machines(tmp_path, 2, **settings) as servers:
        delete_and_watch(servers, AT_ONCE_S)
