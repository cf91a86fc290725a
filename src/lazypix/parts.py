"""What a library is put together of: its options, its parts, and how they are opened and closed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lazypix.addresses import EXPIRY_STEP_S, Addresses
from lazypix.answers import SharedAnswers
from lazypix.backlog import Backlog
from lazypix.catalog import Catalog
from lazypix.changes import Changes
from lazypix.changes.opening import changes_of
from lazypix.engine import Engine
from lazypix.errors import StoreFailed
from lazypix.fetching import Sources
from lazypix.gate import Gate
from lazypix.generations import Generations
from lazypix.incoming import IncomingFolder
from lazypix.keys import KeyScheme
from lazypix.lease import Leases
from lazypix.lease.holding import Holder
from lazypix.lease.locks import FolderInUse, KeyLocks
from lazypix.orders import Orders
from lazypix.originals.reading import Originals
from lazypix.originals.removing import Removals
from lazypix.originals.uploading import Uploads
from lazypix.plan import Limits
from lazypix.replicas.replica import Replica
from lazypix.resumable import ResumableUploads, Where
from lazypix.sharing import Sharing
from lazypix.shelf import Shelf
from lazypix.signing.links import KeyRing
from lazypix.stores import BlobStore
from lazypix.ticketing import Tickets
from lazypix.variants import Variants

if TYPE_CHECKING:
    from lazypix.outbound.downloading import Downloader

log = logging.getLogger("lazypix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a library works, besides where it keeps its images."""

    base_url: str = ""
    """Put before the addresses that are given out."""
    gate: Gate = field(default_factory=Gate)
    """Who may ask for which variants, the keys of signed links, and presets."""
    ticket_keys: KeyRing = field(default_factory=KeyRing)
    """Sign upload tickets: the first of them; all of them verify."""
    expiry_step_s: int = EXPIRY_STEP_S
    """What the expiry of links is rounded up to; see `Addresses`."""
    limits: Limits = field(default_factory=Limits)
    keys: KeyScheme = field(default_factory=KeyScheme)
    replicas: Sequence[Replica] = ()
    """Receive what is stored: by jobs, which are added here, and carried out by a server or worker."""
    queue: int = 256
    """Bounds the variants that are being made or waiting."""
    queue_s: float = 60.0
    """How many seconds of work for each renderer they are estimated to be at most."""
    patience_s: float = 30.0
    """How long work is waited for."""
    facts_ttl_s: float = 2.5
    """How long facts are believed that another machine may have changed."""
    undelete_s: float = 0.0
    """For so many seconds a deleted image can be had back."""
    max_variants: int = 0
    """Variants of one image that are kept; 0: as many as come."""
    max_variant_bytes: int = 0
    """Bytes of all variants that are kept; 0: as many as come."""
    sidecars: bool = False
    """Filename and metadata are stored beside each original too: the catalog can be rebuilt from the store alone."""
    shared: SharedAnswers | None = None
    """Answers in a cache of several machines."""
    changes: Changes | None = None
    """Tell of deletions on other machines; None: the catalog does in its own way. See `LibraryParts.listen`."""
    leases: Leases | None = None
    """Closed with the library; by them one machine at a time makes a variant."""
    lease_s: float = 15.0
    """Seconds after which the lease of a machine that died ends."""
    purges: bool = False
    """A CDN is told by jobs of what it must not serve any more."""
    downloader: Downloader | None = None
    """Downloads originals by URL; None: from the public internet only."""
    remote_hosts: Sequence[str] = ()
    """Hosts whose images are shown by their URLs (`Library.remote`): names, and `*.a.test` for all below one."""
    remote_ttl_s: float = 86_400.0
    """Seconds after which such a source is asked whether it has changed."""
    upload_keep_s: float = 86_400.0
    """For so long an upload in pieces is kept after its last one."""
    tidies: bool = True
    """When it is opened and nobody else is at work, what killed processes left goes, and trash whose time is over."""


class LibraryParts:
    """The parts of a library. Closed together; a context manager."""

    def __init__(
        self, *, catalog: Catalog, store: BlobStore, engine: Engine, folder: Path, options: Options | None = None
    ) -> None:
        """Put a library together.

        `folder`, on this machine, holds incoming files and locks; all processes of a machine share it.
        """
        chosen = options or Options()
        self._folder = folder
        self.catalog = catalog
        self.store = store
        self.engine = engine
        self.replicas = tuple(chosen.replicas)
        self.limits = chosen.limits
        self.keys = chosen.keys
        self.gate = chosen.gate
        self.addresses = Addresses(base_url=chosen.base_url, gate=chosen.gate, expiry_step_s=chosen.expiry_step_s)
        self.undelete_s = chosen.undelete_s
        self.backlog = Backlog(engine, places=chosen.queue, seconds=chosen.queue_s)
        self.incoming = IncomingFolder(folder / "incoming", self.limits.max_bytes)
        self.generations = Generations(folder / "generations")
        self.sharing = Sharing(chosen.shared) if chosen.shared is not None else None
        self.changes = chosen.changes or changes_of(catalog)
        self.orders = Orders(replicas={replica.name: replica.what for replica in self.replicas}, purges=chosen.purges)
        self._open_originals(chosen)
        self._open_variants(chosen, folder)
        self.remote_ttl_s = chosen.remote_ttl_s
        self.sources = Sources(
            chosen.downloader, remote_hosts=tuple(chosen.remote_hosts), rows=self.catalog.sources,
            incoming=self.incoming, get=self.originals.get, max_bytes=self.limits.max_bytes, locks=self.locks,
            holder=self._holder, patience_s=chosen.patience_s,
        )  # fmt: skip
        self._in_use = FolderInUse(folder / "in-use")
        self._in_use.join(when_alone=self._sweep_all if chosen.tidies else lambda: None)

    def _open_originals(self, chosen: Options) -> None:
        self.originals = Originals(
            catalog=self.catalog, store=self.store, keys=self.keys, incoming=self.incoming,
            generations=self.generations, changes=self.changes, facts_ttl_s=chosen.facts_ttl_s,
            end_shared=self.sharing.forget if self.sharing is not None else None,
        )  # fmt: skip
        self.removals = Removals(
            self.originals, catalog=self.catalog, store=self.store, keys=self.keys, orders=self.orders
        )
        self.uploads = Uploads(
            self.originals, self.removals, catalog=self.catalog, store=self.store, engine=self.backlog,
            keys=self.keys, limits=self.limits, patience_s=chosen.patience_s, sidecars=chosen.sidecars,
        )  # fmt: skip

        self.resumable = ResumableUploads(
            self.uploads, self.removals,
            Where(catalog=self.catalog, store=self.store, keys=self.keys, incoming=self.incoming),
            max_bytes=self.limits.max_bytes, keep_s=chosen.upload_keep_s,
        )  # fmt: skip

        self.tickets = Tickets(
            chosen.ticket_keys, self.uploads, self.orders,
            Where(catalog=self.catalog, store=self.store, keys=self.keys, incoming=self.incoming), self.limits,
        )  # fmt: skip

    def _open_variants(self, chosen: Options, folder: Path) -> None:
        self.locks = KeyLocks(folder / "locks")
        self.shelf = Shelf(
            catalog=self.catalog, store=self.store, keys=self.keys, orders=self.orders,
            max_variants=chosen.max_variants, max_bytes=chosen.max_variant_bytes,
        )  # fmt: skip
        self._holder = Holder(chosen.leases, ttl_s=chosen.lease_s) if chosen.leases is not None else None
        self._variants = Variants(
            catalog=self.catalog, shelf=self.shelf, backlog=self.backlog, limits=self.limits,
            originals=self.originals, locks=self.locks, holder=self._holder,
            patience_s=chosen.patience_s,
        )  # fmt: skip

    def listen(self) -> None:
        """Hear from now on what other processes change, on other machines too, in a thread that lives until `close`.

        For processes that stay, and remember; once, before anything is asked of the library. Without it what they
        remember is believed for its time to live, unless a process of the same machine changes it.
        """
        self.changes.subscribe(self.generations.change, self.generations.change_all)

    def close(self) -> None:
        """Finish what is being made, then close all parts; a second time does nothing."""
        self._variants.stop_making()
        self.changes.close()
        if self.sharing is not None:
            self.sharing.close()
        self.backlog.close()
        self.shelf.close()
        if self._holder is not None:
            self._holder.close()
        self.catalog.close()
        self.store.close()
        for replica in self.replicas:
            replica.store.close()
        self._in_use.leave()

    def sweep(self, *, older_than_s: float = 3600) -> int:
        """Remove what killed processes left behind, if it is this old; return how many things were removed.

        An upload that is under way for longer than this is lost to its client (it is told so), never half stored; one
        that comes in pieces goes when its own time is over.
        """
        incomplete = self.incoming.sweep(older_than_s=older_than_s)
        unfinished = self.removals.sweep(older_than_s=older_than_s) + self.resumable.sweep()
        unfinished += self.tickets.sweep(older_than_s=older_than_s)
        self.shelf.evict()
        self.catalog.leases.sweep(older_than_s=older_than_s)
        return incomplete + unfinished + self.store.sweep(older_than_s=older_than_s)

    def _sweep_all(self) -> None:
        """Remove all leftovers: nobody else uses the folder.

        Other machines may use catalog and store all the same, unless the catalog is in the folder: what looks left
        over there may be under way somewhere, and goes by its age.
        """
        try:
            if self.catalog.is_alone_in(self._folder):
                removed = self.sweep(older_than_s=0)
            else:
                removed = self.incoming.sweep() + self.sweep()
        except StoreFailed as error:  # it may be back soon; what is left over then goes by its age
            log.warning("leftovers could not be looked for: %s", error)
            return
        if removed:
            log.info("removed %d leftovers of a process that was killed", removed)
