"""The contract of `Leases`, run on every server of leases. A new one is done when it passes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis import Redis
from tests import programs
from tests.ports import free_port
from tests.waiting import WAIT_S, until

from lazypix.cache.servers import RedisServer
from lazypix.catalog import Catalog
from lazypix.lease import Lease, LeaseFailed, Leases
from lazypix.lease.catalog import CatalogLeases
from lazypix.lease.memcached import MemcachedLeases
from lazypix.lease.opening import open_leases
from lazypix.lease.redis import RedisLeases
from lazypix.lease.sharding import ShardedLeases, SpareLeases

TIMEOUT_S = 20.0  # the machine that tests may be slow; what a short one does is tested with servers that hang
LONG_S, SHORT_S = 60.0, 0.3

Open = Callable[[pytest.FixtureRequest], Leases]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Program]:
    with programs.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def memcached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Program]:
    with programs.memcached(tmp_path_factory.mktemp("memcached")) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}:"


@pytest.fixture(scope="module")
def sqlite_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with closing(Catalog.sqlite(tmp_path_factory.mktemp("sqlite") / "catalog.sqlite")) as catalog:
        yield catalog


@pytest.fixture(scope="module")
def postgres_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def postgres_catalog(postgres_url: str) -> Iterator[Catalog]:
    with closing(Catalog.open(postgres_url)) as catalog:
        yield catalog


def _redis(request: pytest.FixtureRequest) -> Leases:
    address = RedisServer(
        host="127.0.0.1", port=request.getfixturevalue("redis").port, prefix=request.getfixturevalue("prefix")
    )
    return RedisLeases(address, timeout_s=TIMEOUT_S)


def _memcached(request: pytest.FixtureRequest) -> Leases:
    port, prefix = request.getfixturevalue("memcached").port, request.getfixturevalue("prefix")
    return MemcachedLeases("127.0.0.1", port, prefix=prefix, timeout_s=TIMEOUT_S)


def _sqlite(request: pytest.FixtureRequest) -> Leases:
    return CatalogLeases(request.getfixturevalue("sqlite_catalog"))


def _postgres(request: pytest.FixtureRequest) -> Leases:
    return CatalogLeases(request.getfixturevalue("postgres_catalog"))


LEASES: dict[str, Open] = {
    "redis": _redis,
    "memcached": _memcached,
    "sqlite": _sqlite,
    "postgres": _postgres,
    "sharded": lambda request: ShardedLeases([("a", SpareLeases(_redis(request))), ("b", _memcached(request))]),
}
"""How a server of leases is opened for one test."""


@pytest.fixture(params=LEASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def leases(request: pytest.FixtureRequest, name: str) -> Iterator[Leases]:
    with closing(LEASES[name](request)) as opened:
        yield opened


@pytest.fixture
def key(prefix: str) -> str:
    """A key that no other test uses."""
    return prefix


def take(leases: Leases, key: str, ttl_s: float = LONG_S) -> Lease:
    lease = leases.take(key, ttl_s=ttl_s)
    assert lease is not None
    return lease


def test_a_lease_is_given_to_one_at_a_time(leases: Leases, key: str) -> None:
    lease = take(leases, key)
    assert (lease.key, len(lease.token)) == (key, 32)
    assert leases.take(key, ttl_s=LONG_S) is None
    assert take(leases, f"{key} another").token != lease.token
    assert leases.release(lease) is True
    assert take(leases, key).token != lease.token


def test_only_its_owner_releases_a_lease(leases: Leases, key: str) -> None:
    lease = take(leases, key)
    stranger = Lease(key=key, token="0" * 32, fence=lease.fence)
    assert leases.release(stranger) is False
    assert leases.renew(stranger, ttl_s=LONG_S) is False
    assert leases.take(key, ttl_s=LONG_S) is None, "it is still held"
    assert leases.release(lease) is True
    assert leases.release(lease) is False, "it was released before"


def test_a_lease_ends_by_itself_and_not_too_soon(leases: Leases, key: str) -> None:
    started = time.monotonic()
    lease = take(leases, key, SHORT_S)
    another = []

    def given() -> bool:
        found = leases.take(key, ttl_s=LONG_S)
        another.extend([found] if found else [])
        return found is not None

    until(given)
    assert time.monotonic() - started >= SHORT_S
    assert leases.renew(lease, ttl_s=LONG_S) is False
    assert leases.release(lease) is False
    assert leases.renew(another[0], ttl_s=LONG_S) is True, "the late one took nothing from the next"
    assert leases.release(another[0]) is True


def test_a_lease_that_ended_is_not_had_back_though_nobody_took_it(leases: Leases, key: str) -> None:
    lease = take(leases, key, SHORT_S)
    twins = [take(leases, f"{key} {number}", SHORT_S) for number in range(16)]  # on all servers, and ending later
    for twin in twins:
        until(lambda: leases.take(twin.key, ttl_s=LONG_S) is not None)  # noqa: B023
    assert leases.renew(lease, ttl_s=LONG_S) is False
    assert leases.release(lease) is False


def test_a_renewed_lease_lasts_longer(leases: Leases, key: str) -> None:
    for ttl_s in (SHORT_S, 10.0):  # on a machine that stands still the first may end before it is renewed
        key += "."
        lease, other = take(leases, key, ttl_s), take(leases, f"{key} other", ttl_s)
        if renewed := leases.renew(lease, ttl_s=LONG_S):
            break
    assert renewed is True
    until(lambda: leases.take(other.key, ttl_s=LONG_S) is not None)  # as long ago, and not renewed
    assert leases.take(key, ttl_s=LONG_S) is None
    assert leases.release(lease) is True


def test_renewing_can_shorten(leases: Leases, key: str) -> None:
    lease = take(leases, key)
    assert leases.renew(lease, ttl_s=SHORT_S) is True
    until(lambda: leases.take(key, ttl_s=LONG_S) is not None)


def test_fences_grow_with_each_holder_and_follow_the_time(leases: Leases, key: str) -> None:
    before = time.time_ns() // 1000 - 1_000_000
    fences: list[int] = []

    def next_taken() -> bool:
        found = leases.take(key, ttl_s=LONG_S)
        fences.extend([found.fence] if found else [])
        return found is not None

    for _ in range(50):
        lease = take(leases, key)
        fences.append(lease.fence)
        leases.release(lease)
    fences.append(take(leases, key, SHORT_S).fence)  # and this one is not released
    until(next_taken)
    assert fences == sorted(set(fences))
    assert before < fences[0]
    assert fences[-1] < time.time_ns() // 1000 + 1_000_000


ODD_KEYS = [
    "", " ", "a b", "a\r\nb", "a\0b", "a\\0b", "é", "图", "\ud800", "\\ud800", "\x7f", "#", "x" * 251, "x" * 5_000, "é" * 300, "%", "'", "fence", "lease:",
]  # fmt: skip


def test_keys_are_any_text_and_none_is_taken_for_another(leases: Leases, prefix: str) -> None:
    given = [take(leases, prefix + key) for key in ODD_KEYS]
    assert [leases.take(prefix + key, ttl_s=LONG_S) for key in ODD_KEYS] == [None] * len(ODD_KEYS)
    assert [lease.key for lease in given] == [prefix + key for key in ODD_KEYS]
    assert all(leases.renew(lease, ttl_s=LONG_S) for lease in given)
    assert all(leases.release(lease) for lease in given)


def test_of_many_that_take_at_once_one_succeeds(leases: Leases, key: str) -> None:
    threads, rounds = 8, 20
    barrier = threading.Barrier(threads)

    def work(_: int) -> list[Lease | None]:
        got = []
        for turn in range(rounds):
            barrier.wait(WAIT_S)
            got.append(leases.take(f"{key} {turn}", ttl_s=LONG_S))
        return got

    with ThreadPoolExecutor(threads) as pool:
        got = list(pool.map(work, range(threads)))
    for turn in range(rounds):
        assert len([1 for number in range(threads) if got[number][turn] is not None]) == 1


def test_of_many_that_take_what_has_just_ended_one_succeeds(leases: Leases, key: str) -> None:
    threads = 8
    for turn in range(2):
        take(leases, f"{key} {turn}", SHORT_S)
        barrier, taken = threading.Barrier(threads), threading.Event()

        def work(
            _: int, name: str = f"{key} {turn}", barrier: threading.Barrier = barrier, taken: threading.Event = taken
        ) -> int:
            barrier.wait(WAIT_S)
            deadline = time.monotonic() + WAIT_S
            while time.monotonic() < deadline:
                if leases.take(name, ttl_s=LONG_S) is not None:
                    taken.set()
                    return 1
                if taken.is_set():
                    return 0
            return 0

        with ThreadPoolExecutor(threads) as pool:
            assert sum(pool.map(work, range(threads))) == 1


TAKER = """
import sys
from pathlib import Path
from lazypix.catalog import Catalog
from lazypix.lease.opening import open_leases
folder, address, catalog, key, number = sys.argv[1:]
leases = open_leases(address, Catalog.open(catalog), timeout_s=20)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(int(number)):
    lease = leases.take(f"{key} {turn}", ttl_s=60)
    print(f"{turn} {lease.fence}" if lease else f"{turn} -", flush=True)
leases.close()
"""


def _addresses(request: pytest.FixtureRequest, name: str, folder: Path) -> tuple[str, str]:
    """Return the address of leases, and that of the catalog."""
    local = f"sqlite:///{folder / 'catalog.sqlite'}"
    if name in ("redis", "memcached"):
        return f"{name}://{request.getfixturevalue(name).address}?prefix={request.getfixturevalue('prefix')}", local
    return "catalog", request.getfixturevalue("postgres_url") if name == "postgres" else local


@pytest.mark.parametrize("name", ["redis", "memcached", "sqlite", "postgres"])
def test_two_processes_share_leases(request: pytest.FixtureRequest, name: str, key: str, tmp_path: Path) -> None:
    address, catalog = _addresses(request, name, tmp_path)
    with ExitStack() as stack:
        takers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TAKER, str(tmp_path), address, catalog, key, "30"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for _ in range(2)
        ]  # fmt: skip
        for taker in takers:
            assert taker.stdout is not None
            assert taker.stdout.readline() == "ready\n"
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("go\n")
            taker.stdin.flush()
        told = [taker.communicate(timeout=WAIT_S)[0].split() for taker in takers]
        assert [taker.returncode for taker in takers] == [0, 0]
    one, two = ([words[i + 1] for i in range(0, 60, 2)] for words in told)
    assert [(a == "-") != (b == "-") for a, b in zip(one, two, strict=True)] == [True] * 30
    with closing(Catalog.open(catalog)) as opened:
        leases = open_leases(address, opened, timeout_s=TIMEOUT_S)
        assert leases is not None
        with closing(leases):
            assert [leases.take(f"{key} {turn}", ttl_s=LONG_S) for turn in range(30)] == [None] * 30


@pytest.mark.parametrize("ttl_s", [0, -1])
def test_no_time_at_all_is_a_mistake(leases: Leases, key: str, ttl_s: float) -> None:
    with pytest.raises(AssertionError):
        leases.take(key, ttl_s=ttl_s)
    lease = take(leases, key)
    with pytest.raises(AssertionError):
        leases.renew(lease, ttl_s=ttl_s)


def test_closing_twice_is_harmless_and_releases_nothing(request: pytest.FixtureRequest, name: str, key: str) -> None:
    one = LEASES[name](request)
    take(one, key)
    one.close()
    one.close()
    with closing(LEASES[name](request)) as two:
        assert two.take(key, ttl_s=LONG_S) is None


@pytest.mark.parametrize("name", ["redis", "memcached"])
def test_a_server_that_lost_its_memory_goes_on_above(name: str, tmp_path: Path) -> None:
    start = {"redis": programs.redis, "memcached": programs.memcached}[name]
    port = free_port()

    def opened() -> Leases:
        if name == "redis":
            return RedisLeases(RedisServer(host="127.0.0.1", port=port), timeout_s=TIMEOUT_S)
        return MemcachedLeases("127.0.0.1", port, timeout_s=TIMEOUT_S)

    with closing(opened()) as leases:
        with start(tmp_path, port=port):
            before = take(leases, "a")
        with pytest.raises(LeaseFailed):
            leases.renew(before, ttl_s=LONG_S)
        with pytest.raises(LeaseFailed):
            leases.take("b", ttl_s=LONG_S)
        with start(tmp_path, port=port):
            assert leases.renew(before, ttl_s=LONG_S) is False
            assert take(leases, "a").fence > before.fence
            assert leases.release(before) is False


@pytest.mark.parametrize("name", ["redis", "memcached"])
def test_a_server_that_hangs_costs_one_timeout(name: str, tmp_path: Path) -> None:
    start = {"redis": programs.redis, "memcached": programs.memcached}[name]
    now = [1000.0]
    with start(tmp_path) as server, closing(Catalog.sqlite(tmp_path / "c")) as catalog:
        address = f"{name}://{server.address}"
        patient, leases = (open_leases(address, catalog, timeout_s=timeout_s) for timeout_s in (TIMEOUT_S, 0.2))
        assert patient is not None
        assert isinstance(leases, SpareLeases)
        leases._breaker._clock = lambda: now[0]
        with closing(patient), closing(leases):
            lease = take(patient, "a")
            server.pause()
            with pytest.raises(LeaseFailed, match=r"(?i)time"):
                leases.take("b", ttl_s=LONG_S)
            with pytest.raises(LeaseFailed, match="left alone"):
                leases.renew(lease, ttl_s=LONG_S)
            server.resume()

            def back() -> bool:
                now[0] += 100
                try:
                    return leases.renew(lease, ttl_s=LONG_S)
                except LeaseFailed:
                    return False

            until(back)


def test_what_is_no_lease_under_the_key_is_a_failure(redis: programs.Program, prefix: str) -> None:
    address = RedisServer(host="127.0.0.1", port=redis.port, prefix=prefix)
    with closing(RedisLeases(address, timeout_s=TIMEOUT_S)) as leases, closing(Redis(port=redis.port)) as client:
        client.rpush(f"{prefix}lease:a", "x")
        client.set(f"{prefix}fence", "nonsense")
        assert leases.take("a", ttl_s=LONG_S) is None, "somebody has the key"
        with pytest.raises(LeaseFailed):
            leases.release(Lease(key="a", token="0" * 32, fence=1))
        with pytest.raises(LeaseFailed):
            leases.take("b", ttl_s=LONG_S)


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_leases_of_the_dead_are_swept(new_database: Callable[[], str], name: str, key: str, tmp_path: Path) -> None:
    url = new_database() if name == "postgres" else f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    with closing(Catalog.open(url)) as catalog, closing(CatalogLeases(catalog)) as leases:
        take(leases, f"{key} short", 0.001)
        held = take(leases, key)
        until(lambda: catalog.leases.sweep(older_than_s=0) == 1)
        assert catalog.leases.sweep(older_than_s=0) == 0
        assert leases.renew(held, ttl_s=LONG_S) is True


def test_a_database_that_is_away_is_a_failure(tmp_path: Path) -> None:
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    leases = CatalogLeases(catalog)
    lease = take(leases, "a")
    catalog.close()
    (tmp_path / "catalog.sqlite").rename(tmp_path / "away")
    (tmp_path / "catalog.sqlite").mkdir()
    with closing(catalog):
        for ask in (
            lambda: leases.take("a", ttl_s=1),
            lambda: leases.renew(lease, ttl_s=1),
            lambda: leases.release(lease),
        ):
            with pytest.raises(LeaseFailed):
                ask()
