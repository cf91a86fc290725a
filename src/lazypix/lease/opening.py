"""From an address to leases."""

from __future__ import annotations

from lazypix.cache.opening import ACCEPTED as SERVERS
from lazypix.cache.opening import shared_servers
from lazypix.cache.servers import RedisServer
from lazypix.catalog import Catalog
from lazypix.lease import TIMEOUT_S, Leases
from lazypix.lease.catalog import CatalogLeases
from lazypix.lease.sharding import ShardedLeases, SpareLeases

ACCEPTED = f"catalog, none, {SERVERS}"
"""What `open_leases` takes, in words for error messages."""


def open_leases(address: str | None, catalog: Catalog, *, timeout_s: float = TIMEOUT_S) -> Leases | None:
    """Return the leases that an address names; None: there are none, since no other machine shares the work.

    Without an address the catalog gives them if other machines can use it. A server is connected to when it is first
    used: it need not run yet. Machines that share a store need the same address.

    Raises:
        SettingsError: the address is none of those accepted, or a package is missing.
    """
    if address is None:
        address = "none" if catalog.is_local else "catalog"
    if address == "none":
        return None
    if address == "catalog":
        return SpareLeases(CatalogLeases(catalog))
    servers = shared_servers(address, of="leases", accepted=ACCEPTED)
    if isinstance(servers, RedisServer):
        from lazypix.lease.redis import RedisLeases  # needs a package that only those have who use it

        return SpareLeases(RedisLeases(servers, timeout_s=timeout_s))
    from lazypix.lease.memcached import MemcachedLeases  # likewise

    shards: list[tuple[str, Leases]] = []
    for host, port in servers.addresses:
        leases = MemcachedLeases(host, port, prefix=servers.prefix, timeout_s=timeout_s)
        shards.append((f"{host}:{port}", SpareLeases(leases)))
    return shards[0][1] if len(shards) == 1 else ShardedLeases(shards)
