"""The contract of `Changes`, run on every feed, over real servers. A new one is done when it passes."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from tests import programs
from tests.ports import free_port
from tests.programs import Postgres
from tests.waiting import WAIT_S, until

from lazypix import Library
from lazypix.catalog import Catalog
from lazypix.catalog.announcing import KEPT, announce
from lazypix.changes import Changes, NoChanges, listening, postgresql, redis, sqlite
from lazypix.changes.feed import ANSWER_S, NOTICED_S
from lazypix.changes.opening import changes_of, open_changes
from lazypix.engine.idle import IdleEngine

SLOW_S = 4.0
"""What a machine may need that stands still now and then; less than it takes to notice a server that hangs."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is given up because a machine stood still, and nothing that is announced is lost."""
    for of, name in (
        (listening, "ANSWER_S"), (postgresql, "ANSWER_S"), (postgresql, "CONNECT_S"), (redis, "CONNECT_S"),
        (redis, "PUBLISH_S"), (sqlite, "_PATIENCE_S"),
    ):  # fmt: skip
        monkeypatch.setattr(of, name, WAIT_S)


@dataclass(slots=True)
class Listener:
    """Notes what is heard."""

    idents: list[str] = field(default_factory=list)
    missed: int = 0

    def heard(self, ident: str) -> None:
        self.idents.append(ident)

    def miss(self) -> None:
        self.missed += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where machines meet: a catalog, and the feed by which they hear of changes."""

    catalog_url: str
    setting: str
    """Of `changes`; empty: the catalog's own way."""
    cut: Callable[[], None]
    """Close the connections of all who listen, from the server's side."""
    pause: Callable[[], None]
    """Have the server stand still, with its connections open; it does so until `resume`."""
    resume: Callable[[], None]

    def open(self) -> tuple[Catalog, Changes]:
        catalog = Catalog.open(self.catalog_url)
        return catalog, open_changes(self.setting) if self.setting else changes_of(catalog)

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Listen as a machine of its own does."""
        catalog, changes = self.open()
        listener = Listener()
        try:
            changes.subscribe(listener.heard, listener.miss)
            yield listener
        finally:
            changes.close()
            catalog.close()

    def library(self, folder: Path) -> Library:
        """Open a library as another machine does, with its own folder."""
        catalog, changes = self.open()
        return Library.open(folder, catalog=catalog, changes=changes, engine=IdleEngine(), tidies=False)


def _nothing() -> None:
    raise AssertionError("this feed has no server")


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped."""
    with programs.postgres() as server:
        yield server


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Program]:
    with programs.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(
            catalog_url=f"sqlite:///{tmp_path / 'catalog.sqlite'}", setting="",
            cut=lambda: _replace(tmp_path / "catalog.sqlite"), pause=_nothing, resume=_nothing,
        )  # fmt: skip
    elif request.param == "postgresql":
        stopped: list[int] = []
        server: Postgres = request.getfixturevalue("own_postgres")
        name = f"test{uuid.uuid4().hex}"
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        yield Place(
            catalog_url=server.url.rpartition("/")[0] + f"/{name}", setting="", cut=lambda: _terminate(server.url),
            pause=lambda: stopped.extend(_stop(server)), resume=lambda: _go_on(server, stopped),
        )  # fmt: skip
    else:
        redis: programs.Program = request.getfixturevalue("own_redis")
        yield Place(
            catalog_url=f"sqlite:///{tmp_path / 'catalog.sqlite'}",
            setting=f"redis://{redis.address}/1?prefix={uuid.uuid4().hex}:", cut=lambda: _kill_subscribers(redis.port),
            pause=redis.pause, resume=redis.resume,
        )  # fmt: skip


_LISTENERS = b"SELECT pid FROM pg_stat_activity WHERE application_name = 'lazypix changes'"


def _terminate(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(b"SELECT pg_terminate_backend(pid) FROM (%s) AS listeners" % _LISTENERS).fetchall()


def _stop(server: Postgres) -> list[int]:
    """Stop all of PostgreSQL; return the processes of the listening sessions, each of which is a group of its own."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        listening = [pid for (pid,) in connection.execute(_LISTENERS).fetchall()]
    for pid in listening:
        os.kill(pid, signal.SIGSTOP)
    server.program.pause()
    return listening


def _go_on(server: Postgres, stopped: list[int]) -> None:
    server.program.resume()
    while stopped:
        with suppress(ProcessLookupError):
            os.kill(stopped.pop(), signal.SIGCONT)


def _kill_subscribers(port: int) -> None:
    with closing(Redis(port=port)) as client:
        assert client.client_kill_filter(_type="pubsub") > 0


def _replace(file: Path) -> None:
    """Put another file in the place of a database, as who has one back from a backup does."""
    copy = file.with_name("copy.sqlite")
    with closing(Catalog.sqlite(copy)):
        pass
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    copy.rename(file)


EVERYWHERE = pytest.mark.parametrize("place", ["sqlite", "postgresql", "redis"], indirect=True)
IN_CATALOG = pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
WITH_SERVER = pytest.mark.parametrize("place", ["postgresql", "redis"], indirect=True)


class OtherMachine:
    """Another process, with a data folder of its own, that does as it is told: `tests/contracts/other_machine.py`."""

    def __init__(self, place: Place, folder: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.contracts.other_machine",
            place.catalog_url,
            place.setting,
            str(folder),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=programs.ROOT,
            env=programs.environment_of(),
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._answers, self._orders = self._process.stdout, self._process.stdin

    def does(self, *order: str) -> str:
        """Have an order carried out; return what came of it."""
        print(*order, sep="|", file=self._orders, flush=True)
        return self._answers.readline().strip()

    def close(self) -> None:
        self._orders.close()
        try:
            self._process.wait(WAIT_S)
        finally:
            self._process.kill()
            self._answers.close()


@pytest.fixture
def other(place: Place, tmp_path: Path) -> Iterator[OtherMachine]:
    with closing(OtherMachine(place, tmp_path / "other")) as machine:
        yield machine


@EVERYWHERE
def test_what_another_machine_changes_is_heard(place: Place, other: OtherMachine) -> None:
    orders = [
        ("trash", "cat"), ("undelete", "cat"), ("delete", "cat"), ("damaged", "dog"), ("mended", "dog"),
        ("strike", "dog"), ("forget", "dog"),
    ]  # fmt: skip
    assert other.does("add", "cat", "dog") == "done"
    with place.listening() as one, place.listening() as two:
        for order, ident in orders:
            one.idents.clear()
            two.idents.clear()
            assert other.does(order, ident) == "done"
            until(lambda: ident in one.idents and ident in two.idents, 20, lambda: f"{order} was not heard")  # noqa: B023
            assert set(one.idents) == {ident}
        assert one.missed == two.missed == 0


@EVERYWHERE
def test_what_was_not_carried_out_is_not_heard(place: Place, other: OtherMachine) -> None:
    assert other.does("add", "cat", "dog") == "done"
    with place.listening() as listener:
        assert other.does("delete", "nothing") == "UnknownImage"
        assert other.does("mended", "cat") == "done"  # it was not damaged
        assert other.does("undelete", "cat") == "UnknownImage"
        assert other.does("delete", "dog") == "done"
        until(lambda: "dog" in listener.idents)
        assert set(listener.idents) == {"dog"}


@EVERYWHERE
def test_a_process_with_a_thousand_connections_hears(place: Place, other: OtherMachine, tmp_path: Path) -> None:
    assert other.does("add", "cat") == "done"
    with ExitStack() as open_files:
        for _ in range(1024):  # where select(2) ends
            open_files.enter_context((tmp_path / "file").open("wb"))
        with place.listening() as listener:
            assert other.does("delete", "cat") == "done"
            until(lambda: "cat" in listener.idents)
            assert listener.missed == 0


@IN_CATALOG
def test_what_is_rolled_back_is_not_heard(place: Place) -> None:
    catalog, _ = place.open()
    with closing(catalog), place.listening() as listener:
        with suppress(ZeroDivisionError), catalog._database.writing() as connection:
            announce(connection, ["cat"])
            raise ZeroDivisionError
        for ident in ("dog", "cow"):
            catalog.announce([ident])
            until(lambda: ident in listener.idents)  # noqa: B023
        assert listener.idents == ["dog", "cow"]
        assert listener.missed == 0


@IN_CATALOG
def test_what_is_committed_is_heard_even_of_one_who_is_killed_then(place: Place, other: OtherMachine) -> None:
    assert other.does("add", "cat") == "done"
    with place.listening() as listener:
        assert other.does("delete and die", "cat") == ""
        until(lambda: listener.idents == ["cat"])


@EVERYWHERE
def test_a_cut_makes_everything_distrusted_once(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.open()[0].close()
    with place.listening() as listener:
        place.cut()
        until(lambda: listener.missed == 1)
        with place.library(tmp_path / "other") as library:
            library.originals.forget("cat")
            until(lambda: "cat" in listener.idents)
        assert listener.missed == 1
    told = [record.message for record in caplog.records if "changes made by other processes" in record.message]
    assert len(told) == 2
    assert "not heard now" in told[0]
    assert "heard again" in told[1]


@WITH_SERVER
def test_a_server_that_stands_still_is_noticed_in_time(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.listening() as listener, place.library(tmp_path / "other") as library:
        place.pause()
        begun = time.monotonic()
        monkeypatch.setattr(listening, "ANSWER_S", ANSWER_S)
        try:
            until(lambda: listener.missed == 1, NOTICED_S + SLOW_S)
            assert time.monotonic() - begun > 1
        finally:
            monkeypatch.setattr(listening, "ANSWER_S", WAIT_S)
            place.resume()
        until(lambda: listener.missed == 2)
        library.originals.forget("cat")
        until(lambda: "cat" in listener.idents)
        assert listener.missed == 2
    assert sum("not heard now" in record.message for record in caplog.records) == 1


@WITH_SERVER
def test_a_listener_can_be_closed_while_the_server_stands_still(place: Place) -> None:
    catalog, changes = place.open()
    changes.subscribe(lambda _: None, lambda: None)
    assert "lazypix-changes" in {thread.name for thread in threading.enumerate()}
    place.pause()
    try:
        changes.close()
        assert "lazypix-changes" not in {thread.name for thread in threading.enumerate()}
    finally:
        place.resume()
        catalog.close()


@EVERYWHERE
def test_many_at_once_are_all_heard_or_everything_is_distrusted(place: Place, tmp_path: Path) -> None:
    idents = [f"cat{number}" for number in range(3000)]
    with place.listening() as listener, place.library(tmp_path / "other") as library:
        library.originals.forget(*idents)
        library.originals.forget("last")
        until(lambda: "last" in listener.idents or listener.missed > 0)
        until(lambda: listener.missed > 0 or {*idents, "last"} <= set(listener.idents))
        until(lambda: _is_heard(library, listener))


def _is_heard(library: Library, listener: Listener) -> bool:
    library.originals.forget("dog")
    return "dog" in listener.idents


@EVERYWHERE
def test_closing_twice_or_without_having_listened_is_harmless(place: Place) -> None:
    for listens in (True, False):
        catalog, changes = place.open()
        if listens:
            changes.subscribe(lambda _: None, lambda: None)
        changes.close()
        changes.close()
        catalog.close()


def test_none_hears_nothing_and_needs_nothing() -> None:
    changes = open_changes("none")
    assert isinstance(changes, NoChanges)
    changes.subscribe(lambda _: pytest.fail("heard"), lambda: pytest.fail("missed"))
    changes.announce(["cat"])
    changes.close()


def test_a_server_that_comes_later_is_listened_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    listener = Listener()
    with caplog.at_level(logging.WARNING), closing(open_changes(f"redis://127.0.0.1:{port}")) as changes:
        changes.subscribe(listener.heard, listener.miss)
        changes.announce(["lost"])
        changes.announce(["lost"])
        with programs.redis(tmp_path, port=port):
            until(lambda: listener.missed == 1)  # what was remembered before may be untrue
            until(lambda: "heard again" in caplog.text)
            changes.announce(["cat"])
            until(lambda: listener.idents == ["cat"])
    told = [record.message for record in caplog.records]
    assert [text.partition("(")[0].strip() for text in told[:4]] == [
        "changes made by other processes are not heard now",
        "changes cannot be published",
        "changes made by other processes are heard again",
        "changes are published again",
    ]


def test_no_password_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with programs.redis(tmp_path) as server, closing(Redis(port=server.port)) as client:
        client.config_set("requirepass", "right-s3cret")
        with closing(open_changes(f"redis://:wrong-s3cret@{server.address}")) as changes:
            changes.subscribe(lambda _: None, lambda: None)
            changes.announce(["cat"])
            assert "s3cret" not in repr(changes)
    assert "AuthenticationError" in caplog.text
    assert "s3cret" not in caplog.text


def test_announcements_in_sqlite_do_not_pile_up(tmp_path: Path) -> None:
    with closing(Catalog.sqlite(tmp_path / "catalog.sqlite")) as catalog:
        for number in range(5):
            catalog.announce([f"{number}-{each}" for each in range(600)])
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as connection:
            (kept,) = connection.execute("SELECT count(*) FROM changes").fetchone()
    assert kept == KEPT
