"""Opening what the settings describe: all of it, or nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port
from tests.waiting import until

from lazypix.composition import open_library, open_listening
from lazypix.contrib.opening import open_with
from lazypix.engine import Engine
from lazypix.engine.idle import IdleEngine
from lazypix.errors import LazypixError
from lazypix.library import Library
from lazypix.server.app import create
from lazypix.settings import Settings, load


class ClosedEngine(IdleEngine):
    """Remembers that it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.mark.parametrize("opening", [open_library, open_listening])
def test_the_engine_of_a_library_that_cannot_be_opened_is_closed(
    tmp_path: Path, opening: Callable[[Settings, Engine], Library]
) -> None:
    nowhere = f"postgresql://lazypix@127.0.0.1:{free_port()}/none"
    engine = ClosedEngine()
    with pytest.raises(LazypixError):
        opening(load({"data": tmp_path / "data", "catalog": nowhere}, {}), engine)
    assert engine.closed == 1


LASTING: set[threading.Thread] = set()
"""Threads of whatever came before."""


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Have nothing closed by the collector of garbage that nobody has closed."""
    LASTING.update(threading.enumerate())
    gc.disable()
    yield
    gc.enable()


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Have the kernel refuse every new thread, as it does where there are too many."""
    before = threading.stack_size(1 << 47)  # more than there are addresses
    try:
        yield
    finally:
        threading.stack_size(before)


def left_open(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open, and its threads: each renderer has one that keeps it."""
    files = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    threads = [thread.name for thread in threading.enumerate() if thread not in LASTING]
    # What is mapped lives as long as who may look at it.
    return [name for name in files if name.startswith(f"{folder}/") and not name.endswith("/generations")] + threads


def test_a_library_that_cannot_listen_is_closed(tmp_path: Path) -> None:
    engine = ClosedEngine()
    with no_more_threads(), pytest.raises(RuntimeError, match="start new thread"):
        open_listening(load({"data": tmp_path}, {}), engine)
    assert engine.closed == 1
    until(lambda: not left_open(tmp_path), otherwise=lambda: f"left open: {left_open(tmp_path)}")


@pytest.mark.parametrize("opening", [open_library, open_listening])
@pytest.mark.parametrize(
    "wrong",
    [
        {"changes": "redis://nobody@h"},
        {"leases": "nowhere"},
        {"shared_cache": "memcached://"},
        {"store": "s3://"},
        {"replicas": [{"name": "one", "store": "nowhere://"}]},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_address_leaves_nothing_open(
    tmp_path: Path, wrong: dict[str, Any], opening: Callable[[Settings, Engine], Library]
) -> None:
    engine = ClosedEngine()
    with pytest.raises(LazypixError):
        opening(load({"data": tmp_path, **wrong}, {}), engine)
    assert engine.closed == 1
    until(lambda: not left_open(tmp_path), otherwise=lambda: f"left open: {left_open(tmp_path)}")


# Each is found to be wrong when all is open already: by what answers requests, and by what sees to jobs.
WRONG_LATER = [{"stored_images": "redirect"}, {"purge_url": "http://a%2Eb/"}]


@pytest.mark.parametrize("wrong", WRONG_LATER, ids=lambda wrong: next(iter(wrong)))
def test_a_server_that_cannot_start_leaves_nothing_open(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises((LazypixError, ValueError)):
        asyncio.run(started_and_stopped(load({"data": tmp_path, "renderers": 1, **wrong}, {})))
    until(lambda: not left_open(tmp_path), otherwise=lambda: f"left open: {left_open(tmp_path)}")


@pytest.mark.parametrize("wrong", WRONG_LATER, ids=lambda wrong: next(iter(wrong)))
def test_an_application_that_cannot_open_its_library_leaves_nothing_open(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises((LazypixError, ValueError)):
        open_with(load({"data": tmp_path, **wrong}, {}))
    until(lambda: not left_open(tmp_path), otherwise=lambda: f"left open: {left_open(tmp_path)}")


def test_a_worker_that_cannot_start_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYPIX_JOBS", "celery")  # read when the module is imported
    monkeypatch.setenv("LAZYPIX_BROKER", "redis://127.0.0.1:1/0")
    from lazypix.celery import Work

    with pytest.raises(ValueError, match="a%2Eb"):
        Work(load({"data": tmp_path, "renderers": 1, **WRONG_LATER[1]}))
    until(lambda: not left_open(tmp_path), otherwise=lambda: f"left open: {left_open(tmp_path)}")


def test_a_server_that_is_stopped_while_it_opens_its_library_leaves_nothing_open(tmp_path: Path) -> None:
    settings = load({"data": tmp_path, "renderers": 1}, {})
    open_library(settings, IdleEngine()).close()
    file = tmp_path / "catalog.sqlite"

    async def stopped_meanwhile() -> None:
        starting = asyncio.create_task(started_and_stopped(settings))
        with closing(sqlite3.connect(file, isolation_level=None)) as another:
            another.execute("BEGIN EXCLUSIVE")
            await asyncio.to_thread(until, lambda: left_open(tmp_path).count(str(file)) > 1)
            starting.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(stopped_meanwhile())
    until(lambda: not left_open(tmp_path), otherwise=lambda: f"left open: {left_open(tmp_path)}")


async def started_and_stopped(settings: Settings) -> None:
    """Begin a server's lifespan, and end it when it has begun."""
    told = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(told)}

    async def send(message: Any) -> None:
        pass

    await create(settings)({"type": "lifespan", "app": None, "state": {}}, receive, send)
