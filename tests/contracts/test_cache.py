"""The contract of `Cache`, run on every cache. A new one is done when it passes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from tests import programs
from tests.waiting import WAIT_S, until

from lazypix.cache import Cache
from lazypix.cache.guarded import Guarded
from lazypix.cache.memcached import MemcachedCache
from lazypix.cache.process import ProcessCache
from lazypix.cache.redis import RedisCache
from lazypix.cache.servers import RedisServer
from lazypix.cache.sharded import ShardedCache

TIMEOUT_S = 20.0  # the machine that tests may be slow; what a short one does is tested with servers that hang


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with programs.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.port


@pytest.fixture(scope="module")
def memcached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with programs.memcached(tmp_path_factory.mktemp("memcached")) as server:
        yield server.port


def _redis(request: pytest.FixtureRequest, prefix: str) -> Cache:
    server = RedisServer(host="127.0.0.1", port=request.getfixturevalue("redis"), prefix=prefix)
    return RedisCache(server, timeout_s=TIMEOUT_S)


def _memcached(request: pytest.FixtureRequest, prefix: str) -> Cache:
    return MemcachedCache("127.0.0.1", request.getfixturevalue("memcached"), prefix=prefix, timeout_s=TIMEOUT_S)


CACHES: dict[str, Callable[[pytest.FixtureRequest, str], Cache]] = {
    "process": lambda _, __: ProcessCache(),
    "redis": _redis,
    "memcached": _memcached,
    "sharded": lambda _, __: ShardedCache([(name, ProcessCache()) for name in "abc"]),
    "guarded": lambda _, __: Guarded(ProcessCache()),
}
"""How an empty cache is made for one test."""


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    with closing(CACHES[request.param](request, f"{uuid.uuid4().hex}:")) as opened:
        yield opened


def test_what_was_set_is_got(cache: Cache) -> None:
    assert cache.get("a") is None
    cache.set("a", b"1", ttl_s=60)
    cache.set("b", b"2", ttl_s=60)
    assert (cache.get("a"), cache.get("b")) == (b"1", b"2")


def test_setting_again_replaces(cache: Cache) -> None:
    cache.set("a", b"a longer one", ttl_s=60)
    cache.set("a", b"short", ttl_s=60)
    assert cache.get("a") == b"short"


def test_adding_keeps_what_is_there(cache: Cache) -> None:
    assert cache.add("a", b"1", ttl_s=60) is True
    assert cache.add("a", b"2", ttl_s=60) is False
    assert cache.get("a") == b"1"
    cache.set("b", b"1", ttl_s=60)
    assert cache.add("b", b"2", ttl_s=60) is False


def test_deleting(cache: Cache) -> None:
    cache.set("a", b"1", ttl_s=60)
    cache.set("b", b"2", ttl_s=60)
    cache.delete("a")
    cache.delete("nothing")
    assert (cache.get("a"), cache.get("b")) == (None, b"2")
    assert cache.add("a", b"3", ttl_s=60) is True
    assert cache.get("a") == b"3"


def test_entries_end(cache: Cache) -> None:
    cache.set("set", b"1", ttl_s=0.2)
    cache.add("added", b"1", ttl_s=0.2)
    cache.set("longer", b"1", ttl_s=600)
    cache.set("prolonged", b"1", ttl_s=0.2)
    cache.set("prolonged", b"2", ttl_s=600)
    until(lambda: cache.get("set") is None)
    until(lambda: cache.get("added") is None)
    assert cache.add("set", b"2", ttl_s=60) is True
    assert (cache.get("longer"), cache.get("prolonged")) == (b"1", b"2")


@pytest.mark.parametrize("ttl_s", [0.0001, 30 * 86_400.0, 30 * 86_400 + 1.0, 10 * 365 * 86_400.0])
def test_no_time_is_too_short_or_too_long(cache: Cache, ttl_s: float) -> None:
    cache.set("a", b"1", ttl_s=ttl_s)
    cache.add("b", b"1", ttl_s=ttl_s)
    if ttl_s > 1:
        assert (cache.get("a"), cache.get("b")) == (b"1", b"1")
    else:
        until(lambda: cache.get("a") is None)


@pytest.mark.parametrize("ttl_s", [0, -1])
def test_no_time_at_all_is_a_mistake(cache: Cache, ttl_s: float) -> None:
    with pytest.raises(AssertionError):
        cache.set("a", b"1", ttl_s=ttl_s)
    with pytest.raises(AssertionError):
        cache.add("a", b"1", ttl_s=ttl_s)
    cache.set("a", b"1", ttl_s=60)
    assert cache.get("a") == b"1"  # and nothing is the worse for it


VALUES = {
    "empty": b"", "every byte": bytes(range(256)), "lines": b"END\r\nVALUE a 0 1\r\n", "number": b"17",
    "just below 1 MB": b"\xff" * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_are_any_bytes(cache: Cache, value: bytes) -> None:
    cache.set("a", value, ttl_s=60)
    assert cache.get("a") == value
    assert cache.add("b", value, ttl_s=60) is True
    assert cache.get("b") == value


@pytest.mark.parametrize("size", [1024 * 1024, 9_000_000])
def test_what_is_too_large_is_not_kept_and_harms_nothing(cache: Cache, size: int) -> None:
    large = b"x" * size
    cache.set("other", b"1", ttl_s=60)
    cache.set("large", b"1", ttl_s=60)
    cache.set("large", large, ttl_s=60)
    assert cache.get("large") in (None, large)  # never the old one: a server that has room for it cannot keep that
    kept = cache.add("added", large, ttl_s=60)
    assert cache.get("added") == (large if kept else None)
    assert cache.get("other") == b"1"


ODD_KEYS = [
    "", " ", "a b", "a\r\nb", "a\0b", "é", "图", "\ud800", "\x7f", "#", "#a", "x" * 251, "x" * 252, "x" * 100_000, "é" * 300,
    "/i/a.jpg?w=1&h=2#%20", "a\tb", "*", "$",
]  # fmt: skip


def test_keys_are_any_text_and_none_is_taken_for_another(cache: Cache) -> None:
    for number, key in enumerate(ODD_KEYS):
        assert cache.get(key) is None
        cache.set(key, b"%d" % number, ttl_s=60)
    assert [cache.get(key) for key in ODD_KEYS] == [b"%d" % number for number in range(len(ODD_KEYS))]
    for key in ODD_KEYS:
        cache.delete(key)
        assert cache.add(key, b"again", ttl_s=60) is True


def test_of_many_that_add_at_once_one_succeeds(cache: Cache) -> None:
    threads, rounds = 8, 20
    barrier = threading.Barrier(threads)

    def add(number: int) -> list[bool]:
        kept = []
        for turn in range(rounds):
            barrier.wait(WAIT_S)
            kept.append(cache.add(f"key {turn}", b"%d" % number, ttl_s=60))
        return kept

    with ThreadPoolExecutor(threads) as pool:
        kept = list(pool.map(add, range(threads)))
    for turn in range(rounds):
        (winner,) = [number for number in range(threads) if kept[number][turn]]
        assert cache.get(f"key {turn}") == b"%d" % winner


def test_threads_do_not_get_each_others_values(cache: Cache) -> None:
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait(WAIT_S)
        for turn in range(50):
            key, value = f"{number}", b"%d" % number * (1 + turn * 200)
            cache.set(key, value, ttl_s=60)
            assert cache.get(key) == value

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_closing_twice_is_harmless(cache: Cache) -> None:
    cache.set("a", b"1", ttl_s=60)
    cache.close()
    cache.close()


@pytest.mark.parametrize("name", ["redis", "memcached"])
def test_prefixes_keep_users_of_one_server_apart(request: pytest.FixtureRequest, name: str) -> None:
    with closing(CACHES[name](request, "one:")) as one, closing(CACHES[name](request, "two:")) as two:
        for key in ("a", "é"):
            one.set(key, b"1", ttl_s=60)
            assert two.get(key) is None
            assert one.get(key) == b"1"
