"""Leases in the catalog, so that no further server is needed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from lazypix.catalog import Catalog
from lazypix.errors import StoreFailed, StoreFull
from lazypix.lease import Lease, LeaseFailed


class CatalogLeases:
    """Leases as rows of the catalog's database, by its clock. The catalog is not closed with them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __repr__(self) -> str:
        return f"CatalogLeases({self._catalog!r})"

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        token = secrets.token_hex(16)
        with _translated():
            fence = self._catalog.leases.take(key, token, ttl_s=ttl_s)
        return Lease(key=key, token=token, fence=fence) if fence is not None else None

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        with _translated():
            return self._catalog.leases.renew(lease.key, lease.token, ttl_s=ttl_s)

    def release(self, lease: Lease) -> bool:
        with _translated():
            return self._catalog.leases.release(lease.key, lease.token)

    def close(self) -> None:
        pass


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (StoreFailed, StoreFull) as error:
        raise LeaseFailed(str(error)) from error
