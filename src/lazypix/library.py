"""`Library`: what people import. Adds originals, makes variants, and keeps store and catalog in step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, BinaryIO

from lazypix.answers import SharedAnswers
from lazypix.backlog import Backlog
from lazypix.catalog import Catalog, Image, Search, StoredVariant
from lazypix.catalog.job_values import NewJob
from lazypix.changes import Changes
from lazypix.changes.opening import changes_of
from lazypix.dialects.native import address
from lazypix.engine import Engine
from lazypix.errors import StoreFailed
from lazypix.generations import Generations
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.keys import KeyScheme, check_ident
from lazypix.lease import Leases
from lazypix.lease.flight import Flight
from lazypix.lease.holding import Holder
from lazypix.lease.locks import FolderInUse, KeyLocks
from lazypix.lease.opening import open_leases
from lazypix.orders import Orders, Wish
from lazypix.originals.reading import Originals
from lazypix.originals.removing import Removals
from lazypix.originals.uploading import JobsOf, Uploads
from lazypix.plan import Limits
from lazypix.replicas.replica import Replica
from lazypix.sharing import Sharing
from lazypix.shelf import Shelf
from lazypix.stores import BlobStore
from lazypix.stores.addresses import open_store
from lazypix.stores.local import LocalStore, make_folder
from lazypix.transform import Transform
from lazypix.variants import Variant, Variants, natural_format

log = logging.getLogger("lazypix")


class Library:
    """A collection of images. Safe to use from many threads; several processes may open the same one.

    Built from parts; `Library.open` is the embedded default. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        engine: Engine,
        folder: Path,
        replicas: Sequence[Replica] = (),
        limits: Limits | None = None,
        keys: KeyScheme | None = None,
        base_url: str = "",
        queue: int = 256,
        queue_s: float = 60.0,
        patience_s: float = 30.0,
        facts_ttl_s: float = 2.5,
        undelete_s: float = 0.0,
        max_variants: int = 0,
        max_variant_bytes: int = 0,
        sidecars: bool = False,
        shared: SharedAnswers | None = None,
        changes: Changes | None = None,
        leases: Leases | None = None,
        lease_s: float = 15.0,
        purges: bool = False,
        tidies: bool = True,
    ) -> None:
        """Put a library together.

        `folder`, on this machine, holds incoming files and locks; all processes of a machine share it. `replicas`
        receive what is stored: by jobs, which are added here, and carried out by a server or worker. `queue` bounds
        the variants being made or waiting, and `queue_s` how many seconds of work for each renderer they are
        estimated to be; `patience_s` is how long work is waited for, `facts_ttl_s` how long facts are believed that
        another machine may have changed. For `undelete_s` seconds a deleted image can be had back. `max_variants` of
        one image and `max_variant_bytes` of all are kept, 0: as many as come. With `sidecars`, filename and metadata
        are stored beside each original too, so that the catalog can be rebuilt from the store alone. `shared` are
        answers in a cache of several machines. `changes` tell of deletions on other machines, unless given in the
        catalog's own way; see `listen`. By `leases`, closed with the library, one machine at a time makes a
        variant; that of one that dies ends after `lease_s` seconds. If it `purges`, a CDN
        is told by jobs of what it must not serve any more.
        It `tidies` when it is opened and nobody else is at work: what killed processes left goes, and the trash of
        which the time is over.
        """
        self._folder = folder
        self.catalog = catalog
        self.store = store
        self.replicas = tuple(replicas)
        self.orders = Orders(replicas={replica.name: replica.what for replica in replicas}, purges=purges)
        self.engine = engine
        self.backlog = Backlog(engine, places=queue, seconds=queue_s)
        self.limits = limits or Limits()
        self.keys = keys or KeyScheme()
        self.base_url = base_url.rstrip("/")
        self.undelete_s = undelete_s
        self.incoming = IncomingFolder(folder / "incoming", self.limits.max_bytes)
        self.generations = Generations(folder / "generations")
        self.sharing = Sharing(shared) if shared is not None else None
        self.changes = changes or changes_of(catalog)
        self.originals = Originals(
            catalog=catalog, store=store, keys=self.keys, incoming=self.incoming, generations=self.generations,
            changes=self.changes, facts_ttl_s=facts_ttl_s,
            end_shared=self.sharing.forget if self.sharing is not None else None,
        )  # fmt: skip
        self.removals = Removals(self.originals, catalog=catalog, store=store, keys=self.keys, orders=self.orders)
        self.uploads = Uploads(
            self.originals, self.removals, catalog=catalog, store=store, engine=self.backlog, keys=self.keys,
            limits=self.limits, patience_s=patience_s, sidecars=sidecars,
        )  # fmt: skip
        self.locks = KeyLocks(folder / "locks")
        self.shelf = Shelf(
            catalog=catalog, store=store, keys=self.keys, orders=self.orders, max_variants=max_variants,
            max_bytes=max_variant_bytes,
        )  # fmt: skip
        self._holder = Holder(leases, ttl_s=lease_s) if leases is not None else None
        self._variants = Variants(
            catalog=catalog, shelf=self.shelf, backlog=self.backlog, limits=self.limits, originals=self.originals,
            locks=self.locks, holder=self._holder, patience_s=patience_s,
        )  # fmt: skip
        self._in_use = FolderInUse(folder / "in-use")
        self._in_use.join(when_alone=self._sweep_all if tidies else lambda: None)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        catalog: Catalog | str | None = None,
        store: BlobStore | str | None = None,
        engine: Engine | None = None,
        **options: Any,
    ) -> Library:
        """Open (or make) a library in a folder: with SQLite, files and rendering threads, unless others are given.

        `catalog` and `store` may be addresses: `postgresql://user@host/database`, `s3://bucket/prefix?endpoint=…`.

        `options` go to `Library`. Unless they say otherwise, a catalog that other machines can use gives leases.
        """
        root = Path(folder)
        make_folder(root)
        if engine is None:
            from lazypix.engine.threads import ThreadEngine  # loads libvips, which a server process does without

            engine = ThreadEngine()
        if isinstance(store, str):
            store = open_store(store)
        if not isinstance(catalog, Catalog):
            catalog = Catalog.open(catalog) if catalog else Catalog.sqlite(root / "catalog.sqlite")
        if "leases" not in options:
            options["leases"] = open_leases(None, catalog)
        return cls(catalog=catalog, store=store or LocalStore(root / "images"), engine=engine, folder=root, **options)

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

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- originals ---------------------------------------------------------------------------------------------

    def add(
        self,
        source: bytes | bytearray | memoryview | str | Path | BinaryIO,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Image:
        """Store an original: bytes, the path of a file, or a binary file that is read to its end.

        It is verified (decoded once), and durable when this returns. Without `ident` a new one is made.

        Raises:
            BadIdent, IdentTaken: `ident` is malformed, or was ever given before.
            BadUpload: it is empty, or `metadata` cannot be kept as JSON.
            UnsupportedImage: it is no image that can be read, or its filename says another format.
            TooLarge: over the limits of bytes, pixels or frames.
            BrokenImage, RendererLost: it cannot be decoded to the end.
            StoreFull, StoreFailed: it could not be stored.
        """
        if isinstance(source, str | Path) and filename is None:
            filename = PurePath(source).name
        with self.incoming.new() as incoming:
            incoming.copy(source)
            return self.add_incoming(incoming, ident=ident, filename=filename, metadata=metadata)

    def add_incoming(
        self,
        incoming: Incoming,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        jobs: JobsOf | None = None,
    ) -> Image:
        """Store an original that has been received already; as `add`.

        `jobs` are what is to be done with it then; without, the replicas get it.
        """
        return self.uploads.add(
            incoming, ident=ident, filename=filename, metadata=metadata,
            jobs=jobs or (lambda image: self.orders.wished(image.ident, Wish())),
        )  # fmt: skip

    def order(self, image: Image, wish: Wish, *others: NewJob, whole: bool = False) -> None:
        """Have something done with an image by jobs; see `Orders.wished`."""
        self.catalog.jobs.add(self.orders.wished(image.ident, wish, *others, whole=whole))

    def get(self, ident: str) -> Image:
        """Return what is known of an image.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        return self.originals.get(ident)

    def list(self, *, limit: int = 100, before: str | None = None, search: Search | None = None) -> list[Image]:
        """Return images, newest first or as `search` says; `before` goes on behind the last ident of the page before.

        Raises:
            BadRequest: the search is malformed.
            UnknownImage: `before` is not the ident of an image.
        """
        behind = check_ident(before) if before is not None else None
        return self.catalog.search(search or Search(), limit=limit, behind=behind)

    def original(self, ident: str) -> bytes:
        """Return the original, as it came.

        Raises:
            BadIdent, UnknownImage: there is no such image.
            OriginalDamaged, BlobMissing: the store does not have it any more as it was.
        """
        return self.originals.read(self.get(ident))

    def original_path(self, image: Image) -> Path | None:
        """Return the original's file, to be read only, or None when the store has no files."""
        return self.originals.path(image)

    def delete(self, ident: str, *, for_good: bool = False) -> None:
        """Remove the original and all variants; the replicas follow, by jobs. The ident stays taken for ever.

        For `undelete_s` seconds the image can be had back, unless it is deleted `for_good`.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        self.removals.delete(ident, trash_s=0 if for_good else self.undelete_s)

    def undelete(self, ident: str) -> Image:
        """Have a deleted image back, with all its variants.

        Raises:
            BadIdent, UnknownImage: there is no such image that was deleted and can still be had back.
        """
        return self.removals.undelete(ident)

    # --- variants ----------------------------------------------------------------------------------------------

    def variant(
        self, ident: str, transform: Transform | str, *, format: str | None = None, background: bool = False
    ) -> Variant:
        """Return a variant: the stored one, or one that is made and stored now.

        `transform` may be its text. Without a format the original's is taken, or one that can hold it. Work in the
        `background` goes behind all that others wait for.

        Raises:
            BadIdent, UnknownImage: there is no such image.
            BadTransform: the transform is wrong, or impossible for this image.
            BrokenImage, RendererLost, Quarantined: the original cannot be rendered.
            Busy: too many variants are being made.
        """
        image = self.get(ident)
        wanted = Transform.parse(transform) if isinstance(transform, str) else transform
        if format is not None:
            wanted = wanted.with_format(format)
        decided = wanted if wanted.format else wanted.as_format(natural_format(image, wanted))
        stored = self.stored(image, decided)
        if stored is not None:
            return stored
        flight = self.make(image, decided, background=background)
        made = flight.delivered.result()
        flight.landed.result()  # whoever calls this finds the variant stored
        return made

    def stored(self, image: Image, transform: Transform) -> Variant | None:
        """Return a variant if it lies in the store; `transform` has its format decided."""
        return self._variants.stored(image, transform)

    def stored_file(self, image: Image, transform: Transform) -> tuple[Path, int] | None:
        """Return the file of a stored variant, and its size in bytes; None when the store has no files.

        Raises:
            BlobMissing: the variant is not stored.
        """
        return self._variants.stored_file(image, transform)

    def stored_key(self, image: Image, transform: Transform) -> str | None:
        """Return the key of a variant if it lies in the store, without reading it; its format is decided."""
        return self.shelf.find_key(image.ident, transform)

    def variants(self, ident: str) -> Sequence[StoredVariant]:
        """Return the variants of an image that are stored.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        return self._variants.recorded(self.get(ident))

    def make(self, image: Image, transform: Transform, *, background: bool = False) -> Flight[Variant]:
        """Begin to make a variant, or join in when it is being made. It is delivered first, and stored then.

        Raises:
            BadTransform, Quarantined, Busy: as `variant`.
        """
        return self._variants.make(image, transform, background=background)

    def url(self, ident: str, transform: Transform | str = "full", *, format: str | None = None) -> str:
        """Return the address of a variant; without a format the client's `Accept` header decides.

        No I/O: whether the image exists is not checked.

        Raises:
            BadIdent, BadTransform: malformed.
        """
        return self.base_url + address(ident, transform, format)

    def check(self) -> None:
        """Ask catalog and store for a sign of life.

        Raises:
            StoreFailed: one of them does not answer.
        """
        self.catalog.ping()
        self.store.check()

    # --- upkeep ------------------------------------------------------------------------------------------------

    def sweep(self, *, older_than_s: float = 3600) -> int:
        """Remove what killed processes left behind, if it is this old; return how many things were removed.

        An upload that is under way for longer than this is lost to its client (it is told so), never half stored.
        """
        incomplete = self.incoming.sweep(older_than_s=older_than_s)
        unfinished = self.removals.sweep(older_than_s=older_than_s)
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
