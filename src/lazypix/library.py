"""`Library`: what people import. Adds originals, makes variants, and keeps store and catalog in step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from lazypix.catalog import Catalog, Image, Search, StoredVariant
from lazypix.catalog.job_values import NewJob
from lazypix.dialects.remote import remote_address
from lazypix.engine import Engine
from lazypix.incoming import Incoming
from lazypix.keys import check_ident
from lazypix.lease.flight import Flight
from lazypix.lease.opening import open_leases
from lazypix.orders import Wish
from lazypix.originals.uploading import JobsOf
from lazypix.parts import LibraryParts, Options
from lazypix.stores import BlobStore
from lazypix.stores.addresses import open_store
from lazypix.stores.local import LocalStore, make_folder
from lazypix.ticketing import TicketVerbs
from lazypix.transform import Transform
from lazypix.variants import Variant, natural_format

if TYPE_CHECKING:
    from lazypix.delivery import Delivery
    from lazypix.server.embedded import AsgiApp
    from lazypix.wsgi import WsgiApp


class Closable(Protocol):
    """What lives as long as a library does."""

    def close(self) -> None:
        """Finish what is begun, if it does not take long, and stop."""


class Library(LibraryParts, TicketVerbs):
    """A collection of images. Safe to use from many threads; several processes may open the same one.

    `Library.open` is the embedded default. Close it, or use it as a context manager.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._attached: list[Closable] = []

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

        `options` are those of `Options`. Unless they say otherwise, a catalog that other machines can use gives
        leases.
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
        return cls(
            catalog=catalog, store=store or LocalStore(root / "images"), engine=engine, folder=root,
            options=Options(**options),
        )  # fmt: skip

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def attach(self, part: Closable) -> None:
        """Have something closed with the library, before it; the last that was attached goes first."""
        self._attached.append(part)

    def close(self) -> None:
        """Finish what is being made, then close all parts; a second time does nothing."""
        while self._attached:
            self._attached.pop().close()
        super().close()

    # --- faces: imported from below, and late: a library that serves nothing loads none of them ------------------

    @cached_property
    def delivery(self) -> Delivery:
        """Answers requests for images, for all faces of this library; may be set before the first of them is used."""
        from lazypix.delivery import Delivery

        return Delivery(self)

    @cached_property
    def wsgi(self) -> WsgiApp:
        """A WSGI application that serves the images, below `/image/`."""
        from lazypix.wsgi import WsgiApp

        return WsgiApp(self.delivery)

    @cached_property
    def asgi(self) -> AsgiApp:
        """An ASGI application that serves the images, below `/image/`; closed with the library."""
        from lazypix.server.embedded import AsgiApp

        app = AsgiApp(self.delivery)
        self.attach(app)
        return app

    # --- originals ---------------------------------------------------------------------------------------------

    def add(
        self,
        source: bytes | bytearray | memoryview | str | Path | BinaryIO,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        owner: str | None = None,
    ) -> Image:
        """Store an original: bytes, the path of a file, or a binary file that is read to its end.

        It is verified (decoded once), and durable when this returns. Without `ident` a new one is made. It counts for
        the quotas of `owner`, the id of an API key.

        Raises:
            BadIdent, IdentTaken: `ident` is malformed, or was ever given before.
            BadUpload: it is empty, or `metadata` cannot be kept as JSON.
            UnsupportedImage: it is no image that can be read, or its filename says another format.
            TooLarge: over the limits of bytes, pixels or frames.
            BrokenImage, RendererLost: it cannot be decoded to the end.
            StoreFull, StoreFailed: it could not be stored.
            QuotaExceeded, Unauthorized: the owner has no room for it, or was revoked.
        """
        if isinstance(source, str | Path) and filename is None:
            filename = PurePath(source).name
        with self.incoming.new() as incoming:
            incoming.copy(source)
            return self.add_incoming(incoming, ident=ident, filename=filename, metadata=metadata, owner=owner)

    def add_incoming(
        self,
        incoming: Incoming,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        jobs: JobsOf | None = None,
        owner: str | None = None,
    ) -> Image:
        """Store an original that has been received already; as `add`.

        `jobs` are what is to be done with it then; without, the replicas get it.
        """
        return self.uploads.add(
            incoming, ident=ident, filename=filename, metadata=metadata, owner=owner,
            jobs=jobs or (lambda image: self.orders.wished(image.ident, Wish())),
        )  # fmt: skip

    def add_url(
        self,
        url: str,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        owner: str | None = None,
    ) -> Image:
        """Download an original, and store it as `add` does; what its server says of it is kept for `refresh`.

        Without a `filename` it is the one that the server says, or the last part of the URL's path.

        Raises:
            BadRequest: the URL is malformed.
            AddressRefused: it, or a redirect, leads where nothing is downloaded from.
            SourceMissing, SourceFailed: the server says that there is nothing, or answers with another status.
            Unreachable: nobody answered properly in time.
            LazypixError: the image is refused or cannot be stored, as by `add`.
        """
        if ident is not None:
            check_ident(ident)
        store = partial(self.add_incoming, ident=ident, metadata=metadata, owner=owner)
        return self.sources.add(url, store, filename=filename)

    def refresh(self, url: str) -> Image:
        """Ask for what is at a URL now that was downloaded once, unless its server says that it has not changed.

        Something new is stored under a new ident, with metadata and owner of what was there before, which stays.

        Raises:
            UnknownImage: nothing was downloaded from this URL.
            LazypixError: as `add_url`.
        """
        return self.sources.refresh(url, partial(self._add_after, owned=True))

    def remote(self, url: str) -> Image:
        """Return the image that is at a URL of one of the `remote_hosts`, downloaded if it is not here yet.

        After `remote_ttl_s` the source is asked whether it has changed; while it does not answer, the image is the
        one that was there before.

        Raises:
            NotFound: there are no such hosts.
            AddressRefused: this is none of them.
            LazypixError: as `add_url`.
        """
        return self.sources.find(url, partial(self._add_after, owned=False), ttl_s=self.remote_ttl_s)

    def _add_after(self, incoming: Incoming, *, filename: str | None, before: Image | None, owned: bool) -> Image:
        """Store what is at a URL now, in the place of what was there before; `owned`: by its owner."""
        if before is None:
            return self.add_incoming(incoming, filename=filename)
        owner = before.owner if owned else None
        return self.add_incoming(incoming, filename=filename, metadata=before.metadata, owner=owner)

    def remote_url(self, url: str, transform: Transform | str = "full", *, format: str | None = None) -> str:
        """Return the address under which a variant of another server's image is served; signed if it must be.

        No I/O: whether its host is one of the `remote_hosts` is not checked.

        Raises:
            BadTransform: malformed.
            SettingsError: it must be signed, and there are no keys (`url_keys`).
        """
        wanted = self.gate.presets.transform(transform) if isinstance(transform, str) else transform
        if format is not None:
            wanted = wanted.with_format(format)
        return self.addresses.of_target(remote_address(url, wanted), wanted)

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

        `transform` may be its text, or a preset's name. Without a format the original's is taken, or one that can
        hold it. Work in the `background` goes behind all that others wait for.

        Raises:
            BadIdent, UnknownImage: there is no such image.
            BadTransform: the transform is wrong, or impossible for this image.
            BrokenImage, RendererLost, Quarantined: the original cannot be rendered.
            Busy: too many variants are being made.
        """
        image = self.get(ident)
        wanted = self.gate.presets.transform(transform) if isinstance(transform, str) else transform
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

    def make(
        self, image: Image, transform: Transform, *, background: bool = False, keeps: bool = True
    ) -> Flight[Variant]:
        """Begin to make a variant, or join in when it is being made. It is delivered first, and stored then.

        With `keeps` false it is delivered only: for one whose storing is somebody else's affair.

        Raises:
            BadTransform, Quarantined, Busy: as `variant`.
        """
        return self._variants.make(image, transform, background=background, keeps=keeps)

    def url(
        self,
        ident: str,
        transform: Transform | str = "full",
        *,
        format: str | None = None,
        expires_s: float | None = None,
        scope: str | None = None,
    ) -> str:
        """Return the address of a variant, signed where that is needed or asked for; see `Addresses.url`.

        No I/O: whether the image exists is not checked.

        Raises:
            BadIdent, BadTransform, BadRequest, BadSignature, SettingsError: as `Addresses.url`.
        """
        return self.addresses.url(ident, transform, format=format, expires_s=expires_s, scope=scope)

    def check(self) -> None:
        """Ask catalog and store for a sign of life.

        Raises:
            StoreFailed: one of them does not answer.
        """
        self.catalog.ping()
        self.store.check()
