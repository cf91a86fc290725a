"""Several caches as one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from lazypix.cache import Cache

T = TypeVar("T")


class ShardedCache:
    """Keeps every key in one of several caches: always the same one, on every machine that has the same list.

    A cache that fails is not replaced by another: its keys are misses until it comes back. Were they kept elsewhere
    meanwhile, what was deleted there would still be found here afterwards.
    """

    def __init__(self, shards: Sequence[tuple[str, Cache]]) -> None:
        """`shards` are names and caches; a cache's keys follow its name, wherever in the list it stands."""
        assert shards
        self._shards = tuple((name.encode(), cache) for name, cache in shards)

    def __repr__(self) -> str:
        return f"ShardedCache({', '.join(repr(cache) for _, cache in self._shards)})"

    def get(self, key: str) -> bytes | None:
        return self._shard(key).get(key)

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._shard(key).set(key, value, ttl_s=ttl_s)

    def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
        return self._shard(key).add(key, value, ttl_s=ttl_s)

    def delete(self, key: str) -> None:
        self._shard(key).delete(key)

    def close(self) -> None:
        for _, cache in self._shards:
            cache.close()

    def _shard(self, key: str) -> Cache:
        return shard_of(key, self._shards)


def shard_of(key: str, shards: Sequence[tuple[bytes, T]]) -> T:
    """Choose one of several by rendezvous hashing: without one of n only its own keys move.

    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
    """
    text = key.encode("utf-8", "surrogatepass")
    return max(shards, key=lambda shard: hashlib.blake2b(text, key=shard[0][:64], digest_size=8).digest())[1]
