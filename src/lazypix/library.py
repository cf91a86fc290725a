"""`Library`: what people import. Adds originals, makes variants, and keeps store and catalog in step."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, BinaryIO

from lazypix.cache import MemoryCache
from lazypix.catalog import Catalog, Image, StoredVariant
from lazypix.catalog.recorder import VariantRecorder
from lazypix.dialects.native import address
from lazypix.engine import Engine
from lazypix.errors import (
    BadUpload,
    BlobExists,
    BlobMissing,
    IdentTaken,
    LazypixError,
    RendererLost,
    StoreFailed,
    StoreFull,
)
from lazypix.filenames import base_name, check_extension
from lazypix.formats import by_name
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.keys import KeyScheme, check_ident, new_ident
from lazypix.lease import Flight, FolderInUse, KeyLocks, SingleFlight
from lazypix.plan import Limits, Plan, make_plan
from lazypix.quarantine import Quarantine
from lazypix.stores import BlobStore
from lazypix.stores.local import LocalStore
from lazypix.transform import Transform

log = logging.getLogger("lazypix")

_KNOWN_IMAGES = 20_000
_FACTS_TTL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The encoded result of a transform of an image."""

    image: Image
    transform: Transform
    """With its format decided."""
    body: bytes
    timings_ms: tuple[tuple[str, float], ...] = ()
    """How long each step took, for one that was made just now; empty for one that was stored."""

    @property
    def media_type(self) -> str:
        """The MIME type, such as `image/webp`."""
        return by_name(self.transform.format or "").mime


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
        limits: Limits | None = None,
        keys: KeyScheme | None = None,
        base_url: str = "",
        queue: int = 256,
        patience_s: float = 30.0,
    ) -> None:
        """`folder` holds incoming files and locks; `queue` bounds the variants being made at once."""
        self.catalog = catalog
        self.store = store
        self.engine = engine
        self.limits = limits or Limits()
        self.keys = keys or KeyScheme()
        self.base_url = base_url.rstrip("/")
        self.incoming = IncomingFolder(folder / "incoming", self.limits.max_bytes)
        self._patience_s = patience_s
        self._locks = KeyLocks(folder / "locks")
        self._makers = ThreadPoolExecutor(2 * (os.cpu_count() or 1) + 2, thread_name_prefix="lazypix-make")
        self._flights: SingleFlight[Variant] = SingleFlight(self._makers, max_keys=queue)
        self._facts: MemoryCache[Image] = MemoryCache(max_bytes=_KNOWN_IMAGES, ttl_s=_FACTS_TTL_S)
        self._recorder = VariantRecorder(catalog, self._remove_blobs)
        self._quarantine = Quarantine(catalog, engine, self.limits)
        self._in_use = FolderInUse(folder / "in-use")
        self._in_use.join(when_alone=self._sweep_all)

    @classmethod
    def open(cls, folder: str | Path, *, engine: Engine | None = None, **options: Any) -> Library:
        """Open (or make) a library in a folder: files and SQLite, rendering in threads unless `engine` is given.

        `options` go to `Library`.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        if engine is None:
            from lazypix.engine.threads import ThreadEngine  # loads libvips, which a server process does without

            engine = ThreadEngine()
        catalog = Catalog.sqlite(root / "catalog.sqlite")
        return cls(catalog=catalog, store=LocalStore(root / "images"), engine=engine, folder=root, **options)

    def close(self) -> None:
        """Finish what is being made, then close all parts."""
        self._makers.shutdown(wait=True, cancel_futures=True)
        self.engine.close()
        self._recorder.close()
        self.catalog.close()
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
        source: bytes | str | Path | BinaryIO,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Image:
        """Store an original: bytes, the path of a file, or a binary file that is read to its end.

        It is verified (decoded once), and durable when this returns. Without `ident` a new one is made.

        Raises:
            BadIdent, IdentTaken: `ident` is malformed, or was ever given before.
            BadUpload: it is empty.
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
    ) -> Image:
        """Store an original that has been received already; as `add`."""
        ident = check_ident(ident) if ident is not None else new_ident()
        incoming.finish()
        if incoming.size == 0:
            raise BadUpload("The image is empty (0 bytes)")
        filename = base_name(filename)
        probe = self.engine.inspect(str(incoming.path), self.limits).result()
        check_extension(filename, probe.format)
        image = Image(
            ident=ident,
            sha256=incoming.sha256,
            size=incoming.size,
            probe=probe,
            created=datetime.now(UTC),
            filename=filename,
            metadata=metadata or {},
        )
        self._store_original(image, incoming.path)
        return image

    def _store_original(self, image: Image, path: Path) -> None:
        """The upload protocol: claim, put durably, publish. A crash between two steps leaves only a claim."""
        self.catalog.claim(image)
        try:
            if next(iter(self.store.list(self.keys.folder(image.ident))), None) is not None:
                raise BlobExists(f"There are blobs of {image.ident} that the catalog does not know")
            self.store.create(self._origin_key(image), path)
        except BlobExists:
            if self.catalog.withdraw(image.ident):  # the blobs are not ours to remove
                self.catalog.abandon(image.ident)
            raise IdentTaken(f"The ident {image.ident} is taken; existing data is never replaced") from None
        except BaseException:
            self._retract(image.ident)
            raise
        try:
            self.catalog.publish(image.ident)
        except BaseException:
            with suppress(LazypixError):  # the catalog is in trouble; the sweeper will try again
                self._retract(image.ident)
            raise

    def get(self, ident: str) -> Image:
        """Return what is known of an image.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        known = self._facts.get(check_ident(ident))
        if known is None:
            known = self.catalog.get(ident)
            self._facts.set(ident, known, 1)
        return known

    def list(self, *, limit: int = 100, before: str | None = None) -> list[Image]:
        """Return images, newest first; `before` continues after the last ident of the page before."""
        return self.catalog.page(limit=limit, before=before)

    def original(self, ident: str) -> bytes:
        """Return the original, as it came.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        image = self.get(ident)
        with self._looking_again(image):
            return self.store.get(self._origin_key(image))

    def original_path(self, image: Image) -> Path | None:
        """Return the original's file, to be read only, or None when the store has no files."""
        return self.store.local_path(self._origin_key(image))

    def delete(self, ident: str) -> None:
        """Remove the original and all variants. The ident stays taken for ever.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        self.catalog.begin_delete(check_ident(ident))
        self._facts.delete(ident)
        self._finish_delete(ident)

    # --- variants ----------------------------------------------------------------------------------------------

    def variant(self, ident: str, transform: Transform | str, *, format: str | None = None) -> Variant:
        """Return a variant: the stored one, or one that is made and stored now.

        `transform` may be its text. Without a format the original's is taken, or one that can hold it.

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
        flight = self.make(image, decided)
        made = flight.delivered.result()
        flight.landed.result()  # whoever calls this finds the variant stored
        return made

    def stored(self, image: Image, transform: Transform) -> Variant | None:
        """Return a variant if it lies in the store; `transform` has its format decided."""
        try:
            body = self.store.get(self._variant_key(image, transform))
        except BlobMissing:
            return None
        return Variant(image=image, transform=transform, body=body)

    def stored_file(self, image: Image, transform: Transform) -> tuple[Path, int] | None:
        """Return the file of a stored variant, and its size in bytes; None when the store has no files.

        Raises:
            BlobMissing: the variant is not stored.
        """
        key = self._variant_key(image, transform)
        path = self.store.local_path(key)
        return (path, self.store.head(key).size) if path is not None else None

    def variants(self, ident: str) -> Sequence[StoredVariant]:
        """Return the variants of an image that are stored.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        image = self.get(ident)
        self._recorder.flush()
        return self.catalog.variants(image.ident)

    def make(self, image: Image, transform: Transform) -> Flight[Variant]:
        """Begin to make a variant, or join in when it is being made. It is delivered first, and stored then.

        Raises:
            BadTransform, Quarantined, Busy: as `variant`.
        """
        plan = make_plan(transform, image.probe, self.limits)  # refuse before queueing
        key = self._variant_key(image, transform)
        self._quarantine.check(image, key)

        def work(deliver: Callable[[Variant], None]) -> None:
            timer = _Timer()
            with self._locks.hold(key, patience_s=self._patience_s):
                timer.note("wait")
                found = self.stored(image, transform)  # another process may have made it meanwhile
                if found is not None:
                    deliver(found)
                    return
                body = self._rendered(image, plan, key)
                timer.note("render")
                log.debug("rendered %s", key)
                # Nobody waits for the disk; the key stays taken until the variant is stored.
                deliver(Variant(image=image, transform=transform, body=body, timings_ms=tuple(timer.laps)))
                self._keep(image, transform, key, body)

        return self._flights.start(key, work)

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
        next(iter(self.store.list("lazypix-check/")), None)

    # --- upkeep ------------------------------------------------------------------------------------------------

    def sweep(self, *, older_than_s: float = 3600) -> int:
        """Remove what killed processes left behind, if it is this old; return how many things were removed.

        An upload that is under way for longer than this is lost to its client (it is told so), never half stored.
        """
        removed = self.incoming.sweep(older_than_s=older_than_s)
        for ident, state in self.catalog.unfinished(older_than_s=older_than_s):
            if state == "deleting":
                self._finish_delete(ident)
            else:
                self._retract(ident)
            removed += 1
        return removed

    def _sweep_all(self) -> None:
        removed = self.sweep(older_than_s=0)
        if isinstance(self.store, LocalStore):
            removed += self.store.sweep()
        if removed:
            log.info("removed %d leftovers of a process that was killed", removed)

    def _retract(self, ident: str) -> None:
        """Undo a claim. The catalog decides first: what was published in the meantime is not touched."""
        if self.catalog.withdraw(ident):
            self.store.delete_prefix(self.keys.folder(ident))
            self.catalog.abandon(ident)

    def _finish_delete(self, ident: str) -> None:
        self.store.delete_prefix(self.keys.folder(ident))
        self.catalog.end_delete(ident)

    def _rendered(self, image: Image, plan: Plan, key: str) -> bytes:
        with self._looking_again(image), self._original_file(image) as path:
            try:
                return self.engine.render(str(path), plan).result()
            except RendererLost as lost:
                self._quarantine.remember(key, lost)
                with suppress(RuntimeError):  # closing
                    self._makers.submit(self._quarantine.test, image, self._original_file, self._facts.delete)
                raise

    def _keep(self, image: Image, transform: Transform, key: str, body: bytes) -> None:
        """Store a variant that was made. It can be made again, so a store in trouble does not fail the request."""
        try:
            self.store.put(key, body, durable=False)
        except (StoreFailed, StoreFull) as error:
            log.warning("variant %s was made but not stored: %s", key, error)
            return
        stored = StoredVariant(
            stem=transform.stem, format=transform.format or "", size=len(body), created=datetime.now(UTC)
        )
        self._recorder.add(image.ident, stored)

    def _remove_blobs(self, ident: str) -> None:
        """Remove the blobs of an image that was deleted while a variant of it was made."""
        try:
            self.store.delete_prefix(self.keys.folder(ident))
        except StoreFailed as error:
            log.warning("variants of %s, which is deleted, are still there: %s", ident, error)

    @contextmanager
    def _looking_again(self, image: Image) -> Iterator[None]:
        """Tell a deletion from a failure: another process may have deleted the image since its facts were read."""
        try:
            yield
        except LazypixError:
            self._facts.delete(image.ident)
            self.get(image.ident)  # raises UnknownImage
            raise

    @contextmanager
    def _original_file(self, image: Image) -> Iterator[Path]:
        path = self.original_path(image)
        if path is not None:
            yield path
            return
        with self.incoming.new() as copy:
            copy.write(self.store.get(self._origin_key(image)))
            copy.finish()
            yield copy.path

    def _origin_key(self, image: Image) -> str:
        return self.keys.original(image.ident, by_name(image.format).extension)

    def _variant_key(self, image: Image, transform: Transform) -> str:
        return self.keys.variant(image.ident, transform.stem, by_name(transform.format or "").extension)


def natural_format(image: Image, transform: Transform) -> str:
    """Return the format of a variant for which none was asked: the original's, or PNG or JPEG by its alpha."""
    own = by_name(image.format)
    if own.saves and (own.lossless or not transform.lossless):
        return own.name
    return "png" if image.probe.alpha or transform.lossless else "jpg"


class _Timer:
    """Notes how long the steps of one piece of work take."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        self.laps.append((name, (now - self._last) * 1000))
        self._last = now
