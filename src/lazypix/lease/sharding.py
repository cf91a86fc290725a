"""Several servers of leases as one, and servers that are left alone after a failure."""

from __future__ import annotations

from collections.abc import Sequence

from lazypix.cache.breaker import Breaker
from lazypix.cache.sharded import shard_of
from lazypix.lease import Lease, LeaseFailed, Leases


class SpareLeases:
    """Leases of a server that is asked sparingly while it fails.

    As `Breaker` has it; who does not get to ask gets `LeaseFailed` at once.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._breaker = Breaker(leases, LeaseFailed)

    def __repr__(self) -> str:
        return repr(self._leases)

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        return self._breaker.ask(lambda: self._leases.take(key, ttl_s=ttl_s))

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        return self._breaker.ask(lambda: self._leases.renew(lease, ttl_s=ttl_s))

    def release(self, lease: Lease) -> bool:
        return self._breaker.ask(lambda: self._leases.release(lease))

    def close(self) -> None:
        self._leases.close()


class ShardedLeases:
    """Has each key's leases given by one of several servers: the same one on every machine that has the same list.

    For the keys of one that fails there are no leases until it comes back: no other stands in, since not all machines
    would see that at the same moment.
    """

    def __init__(self, shards: Sequence[tuple[str, Leases]]) -> None:
        """`shards` are names and servers; a server's keys follow its name, wherever in the list it stands."""
        assert shards
        self._shards = tuple((name.encode(), leases) for name, leases in shards)

    def __repr__(self) -> str:
        return f"ShardedLeases({', '.join(repr(leases) for _, leases in self._shards)})"

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        return shard_of(key, self._shards).take(key, ttl_s=ttl_s)

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        return shard_of(lease.key, self._shards).renew(lease, ttl_s=ttl_s)

    def release(self, lease: Lease) -> bool:
        return shard_of(lease.key, self._shards).release(lease)

    def close(self) -> None:
        for _, leases in self._shards:
            leases.close()
