"""Makes variants under leases, and stops itself by SIGSTOP at named places on the way.

Run as `python paused.py <folder> <store> <catalog> <leases> <shared cache> <seconds of a lease>`; reads `<width>
<place>` from standard input, a line each, tells `stopped` before it stops, and `<status> <sha256>` when the variant is
delivered and all is done.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

from tests.faults.stores import open_named
from tests.waiting import WAIT_S, until
from tests.watched import WatchedEngine
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.answers import SharedAnswers
from lazypix.cache.opening import open_cache
from lazypix.catalog import Catalog, StoredVariant
from lazypix.catalog.recorder import Recorded, VariantRecorder
from lazypix.delivery import Delivery
from lazypix.http import Request
from lazypix.lease import Lease, Leases
from lazypix.lease.opening import open_leases
from lazypix.stores import BlobStore

PLACES = ("while rendering", "before the row", "after the row", "at the store", "before the release")


class Places:
    """Stops the process when it comes to the place that was chosen."""

    def __init__(self) -> None:
        self.chosen = ""

    def come_to(self, place: str) -> None:
        if place == self.chosen:
            self.chosen = ""
            print("stopped", flush=True)
            # Sent to this thread, so that it stops here: one to the process may stop another first, while this goes on.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


class PausingStore(WrappedStore):
    def __init__(self, store: BlobStore, places: Places) -> None:
        super().__init__(store)
        self._places = places

    def before(self, verb: str, key: str) -> None:
        if verb in ("create", "put"):
            self._places.come_to("at the store")


class PausingLeases:
    def __init__(self, leases: Leases, places: Places) -> None:
        self._leases = leases
        self._places = places

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        return self._leases.take(key, ttl_s=ttl_s)

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        return self._leases.renew(lease, ttl_s=ttl_s)

    def release(self, lease: Lease) -> bool:
        self._places.come_to("before the release")
        return self._leases.release(lease)

    def close(self) -> None:
        self._leases.close()


def pause_around_rows(places: Places) -> None:
    """Make a place before a variant is recorded, and one after its row is durable."""
    record = VariantRecorder.record

    def pausing(self: VariantRecorder, ident: str, variant: StoredVariant) -> Future[Recorded]:
        places.come_to("before the row")
        done = record(self, ident, variant)
        done.result(60)
        places.come_to("after the row")
        return done

    VariantRecorder.record = pausing  # type: ignore[method-assign]


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(threadName)s %(message)s")
    logging.getLogger("lazypix").setLevel(logging.INFO)
    folder, store, catalog_url, address, cache, lease_s = sys.argv[1:]
    places, engine = Places(), WatchedEngine()
    engine.before = lambda: places.come_to("while rendering")
    pause_around_rows(places)
    catalog = Catalog.open(catalog_url)
    leases = open_leases(address, catalog, timeout_s=20)
    assert leases is not None
    shared = SharedAnswers(open_cache(cache, timeout_s=20), ttl_s=600)
    with Library.open(
        Path(folder), catalog=catalog, store=PausingStore(open_named(store), places), engine=engine,
        leases=PausingLeases(leases, places), lease_s=float(lease_s), shared=shared, tidies=False,
    ) as library:  # fmt: skip
        delivery = Delivery(library, cache_ttl_s=0)
        print("ready", flush=True)
        for line in sys.stdin:
            width, _, places.chosen = line.strip().partition(" ")
            answer = delivery.answer(Request(method="GET", path=f"/image/{width}x/cat.jpg"))
            until(lambda: len(library._variants._flights) == 0, WAIT_S)
            assert isinstance(answer.body, bytes)
            print(answer.status, hashlib.sha256(answer.body).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
