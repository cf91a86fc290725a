"""The cache in memory: its bound, its time to live, and many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from lazypix.cache.memory import MemoryCache


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _cache(max_bytes: int = 80, ttl_s: float = 5.0, clock: Clock | None = None) -> MemoryCache[str]:
    return MemoryCache(max_bytes=max_bytes, ttl_s=ttl_s, clock=clock or Clock())


def test_what_was_set_is_got() -> None:
    cache = _cache()
    assert cache.get("a") is None
    cache.set("a", "1", 10)
    cache.set(("b", 2), "2", 10)
    assert (cache.get("a"), cache.get(("b", 2)), cache.size) == ("1", "2", 20)


def test_a_new_value_replaces_the_old_and_its_size() -> None:
    cache = _cache()
    cache.set("a", "1", 10)
    cache.set("a", "2", 4)
    assert (cache.get("a"), cache.size) == ("2", 4)


def test_a_value_lives_for_its_time_and_no_longer() -> None:
    clock = Clock()
    cache = _cache(ttl_s=5, clock=clock)
    cache.set("a", "1", 10)
    clock.now += 4.9
    assert cache.get("a") == "1"
    clock.now += 0.2  # being read does not prolong it
    assert cache.get("a") is None
    assert cache.size == 0


def test_setting_again_prolongs() -> None:
    clock = Clock()
    cache = _cache(ttl_s=5, clock=clock)
    cache.set("a", "1", 10)
    clock.now += 4
    cache.set("a", "1", 10)
    clock.now += 4
    assert cache.get("a") == "1"


def test_the_least_recently_used_goes_first() -> None:
    cache = _cache(max_bytes=80)
    for key in "abcdefgh":
        cache.set(key, key, 10)
    assert cache.size == 80
    assert cache.get("a") == "a"  # used just now
    cache.set("i", "i", 10)
    assert [key for key in "abcdefghi" if cache.get(key) is None] == ["b"]


def test_what_is_too_large_is_not_taken_and_drives_nothing_out() -> None:
    cache = _cache(max_bytes=80)
    cache.set("a", "1", 10)
    cache.set("large", "2", 11)  # more than an eighth
    assert (cache.get("large"), cache.get("a"), cache.size) == (None, "1", 10)
    cache.set("a", "3", 11)  # the old value must not stay either
    assert (cache.get("a"), cache.size) == (None, 0)


def test_deleting() -> None:
    cache = _cache()
    for key in "abc":
        cache.set(key, key.upper(), 10)
    cache.delete("a")
    cache.delete("nothing")
    assert (cache.get("a"), cache.size) == (None, 20)


def test_without_room_nothing_is_kept() -> None:
    cache = _cache(max_bytes=0)
    cache.set("a", "1", 1)
    assert (cache.get("a"), cache.size) == (None, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.booleans())))
def test_the_bound_always_holds_and_the_count_is_right(steps: list[tuple[int, int, bool]]) -> None:
    cache = MemoryCache[int](max_bytes=100, ttl_s=5)
    sizes: dict[int, int] = {}
    for key, size, delete in steps:
        if delete:
            cache.delete(key)
        else:
            cache.set(key, size, size)
        sizes[key] = size
        assert 0 <= cache.size <= 100
        assert cache.size == sum(sizes[k] for k in sizes if cache.get(k) is not None)


def test_many_threads_leave_it_whole() -> None:
    cache = MemoryCache[int](max_bytes=1000, ttl_s=60)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait(30)
        for turn in range(2000):
            key = (turn * 7 + number) % 50
            cache.set(key, key, 1 + key)
            assert cache.get(key) in (None, key)
            if turn % 3 == 0:
                cache.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert cache.size == sum(1 + key for key in range(50) if cache.get(key) is not None)
    assert cache.size <= 1000
