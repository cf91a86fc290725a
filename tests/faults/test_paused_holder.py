"""A holder that was stopped wakes up after its lease was given away: it overwrites, releases and publishes nothing."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from redis import Redis
from tests import programs
from tests.engine.pictures import jpg, quadrants
from tests.faults.paused import PLACES
from tests.programs import ACCESS_KEY, ROOT, SECRET_KEY, Program
from tests.waiting import WAIT_S, until
from tests.watched import WatchedEngine

from lazypix import Library
from lazypix.catalog import Catalog
from lazypix.lease import Lease, Leases
from lazypix.lease.opening import open_leases
from lazypix.plan import Plan
from lazypix.stores.addresses import open_store

LONG_S = 600.0
LEASE_S = 3.0
"""That of the one who stops; it is waited for each time."""
PAUSED_AFTER_STORING = "before the release"

CASES = [
    ("redis", "seaweedfs"), ("memcached", "seaweedfs"), ("catalog", "seaweedfs"), ("redis", "rclone_s3"), ("redis", "folder"),
]  # fmt: skip


class OtherEngine(WatchedEngine):
    """An engine as of another version: its results are as good, and not the same bytes."""

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        done: Future[bytes] = Future()
        done.set_result(super().render(path, plan).result(60) + b"of the other machine")
        return done


class Holder:
    """The process that stops itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def is_stopped(self) -> bool:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def holding(folder: Path, *addresses: str, lease_s: float = LEASE_S) -> Iterator[Holder]:
    log = folder / "paused.log"
    environment = programs.environment_of(
        TEST_ACCESS_KEY=ACCESS_KEY, TEST_SECRET_KEY=SECRET_KEY, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path])
    )
    command = [sys.executable, "-m", "tests.faults.paused", str(folder / "stopped"), *addresses, str(lease_s)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=ROOT,
        )
    try:
        holder = Holder(process)
        assert holder.hear() == "ready", log.read_text()
        yield holder
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(60)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(params=CASES, ids="-".join)
def addresses(
    request: pytest.FixtureRequest, new_database: Callable[[], str], redis: Program, tmp_path: Path
) -> Iterator[tuple[str, str, str, str]]:
    """Those of a store, a catalog, a server of leases, and a shared cache."""
    kind, store = request.param
    store_address = f"file://{tmp_path / 'images'}"
    if store != "folder":
        server: Program = request.getfixturevalue(store)
        store_address = f"s3://bucket/{uuid.uuid4().hex}?endpoint=http://{server.address}&region=us-east-1"
    cache, own = (f"redis://{redis.address}/{number}?prefix={tmp_path.name}:" for number in (0, 1))
    if kind == "memcached":
        with programs.memcached(tmp_path) as memcached:
            yield store_address, new_database(), f"memcached://{memcached.address}", cache
    else:
        yield store_address, new_database(), own if kind == "redis" else "catalog", cache


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with programs.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def other(addresses: tuple[str, str, str, str], tmp_path: Path) -> Iterator[tuple[Library, Leases]]:
    """Another machine of the same fleet, and the leases as it sees them."""
    store, catalog_url, address, _ = addresses
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY} if store.startswith("s3:") else {}
    catalog = Catalog.open(catalog_url)
    leases = open_leases(address, catalog, timeout_s=20)
    assert leases is not None
    with Library.open(
        tmp_path / "other", catalog=catalog, store=open_store(store, secrets=keys), engine=OtherEngine(), leases=leases,
        lease_s=LONG_S, tidies=False,
    ) as library:  # fmt: skip
        library.add(jpg(quadrants()), ident="cat")
        yield library, leases


def _taken(leases: Leases, key: str) -> Lease:
    found: list[Lease] = []

    def given() -> bool:
        found.extend(filter(None, [leases.take(key, ttl_s=LONG_S)]))
        return bool(found)

    until(given, WAIT_S)
    return found[0]


def _stopped_at(place: str, stopped: Holder, library: Library, widths: Iterator[int]) -> int:
    """Have it make variants until it stops at a place; return the width of that one.

    On a machine that stands still it may lose its lease before: then it does not come there, or without having stored.
    """
    for width in itertools.islice(widths, 10):
        stopped.tell(f"{width} {place}")
        said = stopped.hear()
        if said == "stopped":
            until(stopped.is_stopped)
            if place != PAUSED_AFTER_STORING or f"{width}x" in {variant.stem for variant in library.variants("cat")}:
                return width
            stopped.process.send_signal(signal.SIGCONT)
            said = stopped.hear()
        assert said.startswith("200 "), said
    pytest.fail(f"it never comes to {place}")


def test_a_holder_that_comes_too_late_changes_nothing(
    addresses: tuple[str, str, str, str], other: tuple[Library, Leases], redis: Program, tmp_path: Path
) -> None:
    library, leases = other
    with holding(tmp_path, *addresses) as stopped:
        widths = itertools.count(20)
        for place in PLACES:
            width = _stopped_at(place, stopped, library, widths)
            key = f"cat/{width}x.jpg"
            body = library.variant("cat", f"{width}x").body  # waits until the lease has ended
            third = _taken(leases, key)
            before = {variant.stem: variant for variant in library.variants("cat")}[f"{width}x"]
            assert before.sha256 == hashlib.sha256(body).hexdigest()
            stopped.process.send_signal(signal.SIGCONT)
            status, digest = stopped.hear().split()

            assert status == "200", place
            assert (digest == before.sha256) == (place == PAUSED_AFTER_STORING), "it delivers what it made itself"
            assert library.store.get(key) == body, f"stopped {place}, it overwrote the blob"
            after = {variant.stem: variant for variant in library.variants("cat")}[f"{width}x"]
            assert (after.fence, after.sha256, after.created) == (before.fence, before.sha256, before.created), place
            assert 0 < before.fence < third.fence
            assert leases.renew(third, ttl_s=LONG_S), f"stopped {place}, it released what another has"


@pytest.mark.parametrize("addresses", [("redis", "seaweedfs")], indirect=True, ids="-".join)
def test_a_holder_that_comes_too_late_shares_nothing(
    addresses: tuple[str, str, str, str], other: tuple[Library, Leases], redis: Program, tmp_path: Path
) -> None:
    library, leases = other
    with closing(Redis(port=redis.port)) as cache, holding(tmp_path, *addresses, lease_s=10) as stopped:
        stopped.tell("20 while rendering")
        assert stopped.hear() == "stopped"
        until(stopped.is_stopped)
        _taken(leases, "cat/20x.jpg")
        stopped.process.send_signal(signal.SIGCONT)
        assert stopped.hear().startswith("200 ")
        assert library.variants("cat") == []
        assert [blob.key for blob in library.store.list("cat/")] == ["cat/origin.jpg"]
        stopped.tell("30")
        assert stopped.hear().startswith("200 ")
        until(lambda: len(cache.keys(f"{tmp_path.name}:answer:*")) > 0)  # that of the second, which it makes later
    with closing(Redis(port=redis.port)) as cache:
        assert len(cache.keys(f"{tmp_path.name}:answer:*")) == 1
        assert library.store.get("cat/30x.jpg")
