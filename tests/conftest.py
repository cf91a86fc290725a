"""Fixtures for all tests, and the watch for leaks: a module leaves no thread and no process behind."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from tests import programs
from tests.programs import Postgres, Program
from tests.watched import WatchedEngine

from lazypix import Library
from lazypix.engine.renderers import RendererEngine, RendererLimits
from lazypix.engine.threads import ThreadEngine

GRACE_S = 20.0
"""What was told to stop may need a moment, also where the machine stands still now and then."""
LOOK_UP, LOOK_UP_S = "lazypix-look-up", 60.0
"""Threads that look up a name end by themselves, when the system's resolver gives up."""
_HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
"""Processes of Python's own, which live as long as this one."""
LASTING: set[int] = set()
"""Processes that serve all tests, and end with the last."""

# Servers are started in folders of their own: a relative path, such as `PYTHONPATH=src`, means the same there.
if paths := os.environ.get("PYTHONPATH"):
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep))

# No deadline for one example: on a busy machine it would measure the machine.
settings.register_profile("lazypix", deadline=None, max_examples=150)
settings.load_profile("lazypix")


@pytest.fixture(scope="module", autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the module whose tests leave threads or processes behind."""
    threads, processes = set(_threads()), set(_children())
    yield
    begun = time.monotonic()
    while True:
        waited_s = time.monotonic() - begun
        left_threads = [t for t in _threads() if t not in threads]
        left_processes = {pid: name for pid, name in _children().items() if pid not in processes}
        if not left_threads and not left_processes:
            return
        only_look_ups = not left_processes and all(t.name == LOOK_UP for t in left_threads)
        if waited_s > (LOOK_UP_S if only_look_ups else GRACE_S):
            pytest.fail(f"{request.node.name} left behind threads {left_threads} and processes {left_processes}")
        time.sleep(0.05)


def _threads() -> list[threading.Thread]:
    """Return Python's threads; not those that libvips made, through which it once called Python."""
    return [thread for thread in threading.enumerate() if not thread.name.startswith("Dummy-")]


def _children() -> dict[int, str]:
    """Return pid and command line of this process' children (on Linux; elsewhere none are seen)."""
    found = _children_of("self")
    forking = [pid for pid, command in found.items() if "multiprocessing.forkserver" in command]
    kept = {pid: command for pid, command in found.items() if not any(name in command for name in _HELPERS)}
    forked = {pid: command for server in forking for pid, command in _children_of(str(server)).items()}
    return {pid: command for pid, command in (kept | forked).items() if pid not in LASTING}


def _children_of(parent: str) -> dict[int, str]:
    pids = [pid for file in Path(f"/proc/{parent}/task").glob("*/children") for pid in _read(file).split()]
    return {int(pid): _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip() for pid in pids}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # gone meanwhile
        return ""


@pytest.fixture(scope="module")
def engine() -> Iterator[ThreadEngine]:
    """An engine in threads. For tests that call it directly; a `Library` closes its own."""
    with_threads = ThreadEngine(2)
    yield with_threads
    with_threads.close()


@pytest.fixture(scope="module")
def renderers() -> Iterator[RendererEngine]:
    """An engine in two renderer processes."""
    processes = RendererEngine(2, RendererLimits(deadline_s=30))
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster for all tests."""
    with programs.postgres() as running:
        LASTING.add(running.program.process.pid)
        yield running


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A strict S3 server for all tests."""
    yield from _lasting(programs.seaweedfs(tmp_path_factory.mktemp("seaweedfs")))


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A poor S3 server for all tests."""
    yield from _lasting(programs.rclone_s3(tmp_path_factory.mktemp("rclone")))


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """An Azure emulator for all tests."""
    yield from _lasting(programs.azurite(tmp_path_factory.mktemp("azurite")))


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A RabbitMQ server for all tests; each uses a virtual host or queues of its own."""
    yield from _lasting(programs.rabbitmq(tmp_path_factory.mktemp("rabbitmq")))


def _lasting(program: AbstractContextManager[Program]) -> Iterator[Program]:
    with program as running:
        LASTING.add(running.process.pid)
        yield running


@pytest.fixture(scope="session")
def new_database(postgres: Postgres) -> Callable[..., str]:
    """A function that makes a PostgreSQL database, empty or like another one, and returns its address."""
    numbers = itertools.count()

    def make(like: str = "") -> str:
        name = f"test{next(numbers)}"
        template = f" TEMPLATE {like.rpartition('/')[2]}" if like else ""
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}{template}".encode())
        return postgres.url.rpartition("/")[0] + f"/{name}"

    return make


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """An empty library in a folder, rendering in threads."""
    with Library.open(tmp_path / "library", engine=ThreadEngine(2)) as opened:
        yield opened


@pytest.fixture
def watched() -> WatchedEngine:
    """The engine of `watching`, which closes it."""
    return WatchedEngine()


@pytest.fixture
def watching(tmp_path: Path, watched: WatchedEngine) -> Iterator[Library]:
    """An empty library whose engine is watched."""
    with Library.open(tmp_path / "library", engine=watched) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], str]:
    """A function that writes bytes to a new file and returns its path, as engines want it."""
    folder = tmp_path / "files"
    folder.mkdir()

    def write(data: bytes) -> str:
        path = folder / f"{len(list(folder.iterdir()))}.bin"
        path.write_bytes(data)
        return str(path)

    return write
