"""Originals by URL: downloaded, kept with what their servers said of them, and asked for again later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Image
from lazypix.catalog.source_rows import Source, SourceRows, digest_of
from lazypix.errors import (
    AddressRefused,
    Busy,
    LazypixError,
    NotFound,
    SourceMissing,
    StoreFailed,
    StoreFull,
    UnknownImage,
)
from lazypix.filenames import downloaded_name
from lazypix.formats import SNIFF_BYTES, Format, sniff
from lazypix.incoming import Incoming, IncomingFolder
from lazypix.lease.holding import Holder
from lazypix.lease.locks import KeyLocks
from lazypix.outbound.rules import check_hosts, split_url

if TYPE_CHECKING:
    from lazypix.outbound.downloading import Downloaded, Downloader, Validators

log = logging.getLogger("lazypix")

FAILED_S = 10.0
"""A source that failed is left alone for so many seconds."""
_FAILURES = 1000
_OURS = (Busy, StoreFailed, StoreFull)
"""Errors that say nothing of the source."""
_FINAL = (AddressRefused, SourceMissing)
"""Errors after which what was there before is not shown any more."""

Store = Callable[..., Image]
"""Stores what was received: `store(incoming, filename=…)`; and `before=…` what was at the URL before, or None, if it
was asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a URL's image was at last."""

    source: Source
    image: Image

    def is_fresh(self, ttl_s: float) -> bool:
        """Tell whether the source need not be asked."""
        return (datetime.now(UTC) - self.source.checked).total_seconds() < ttl_s


class Sources:
    """The URLs that originals are downloaded from. Safe to use from many threads.

    What is refused, or fails, is logged as a warning, with the host and the reason.
    """

    def __init__(
        self,
        downloader: Downloader | None,
        *,
        remote_hosts: tuple[str, ...],
        rows: SourceRows,
        incoming: IncomingFolder,
        get: Callable[[str], Image],
        max_bytes: int,
        locks: KeyLocks,
        holder: Holder | None,
        patience_s: float,
    ) -> None:
        """`get` returns the image of an ident; without a `downloader` it is the public internet's."""
        self.remote_hosts = check_hosts(remote_hosts)
        self._given = downloader
        self._rows = rows
        self._incoming = incoming
        self._get = get
        self._max_bytes = max_bytes
        self._locks = locks
        self._holder = holder
        self._patience_s = patience_s
        self._failures: MemoryCache[LazypixError] = MemoryCache(max_bytes=_FAILURES, ttl_s=FAILED_S)

    @cached_property
    def downloader(self) -> Downloader:
        """What downloads."""
        from lazypix.outbound.downloading import Downloader  # loads httpx, which most libraries do without

        return self._given or Downloader()

    @cached_property
    def _remote(self) -> Downloader:
        return self.downloader.only(self.remote_hosts)

    def add(self, url: str, store: Store, *, filename: str | None = None) -> Image:
        """Download an original, and store it. Errors: as `Library.add_url`."""
        with self._downloaded(url, self.downloader) as (incoming, done):
            image = store(incoming, filename=filename or _filename(incoming, done))
            self._record(url, image, done.validators)
        return image

    def refresh(self, url: str, store: Store) -> Image:
        """Ask a source whether it has changed, and store what is there now. Errors: as `Library.refresh`."""
        if self._rows.get(url) is None:
            raise UnknownImage("No image was downloaded from this URL")
        with self._turn(url):
            return self._renewed(url, store, self.downloader)

    def find(self, url: str, store: Store, *, ttl_s: float) -> Image:
        """Return the image of a source: as it was at last if that was asked `ttl_s` seconds ago at most.

        Else it is asked, by one of all who want it; while it cannot be had, what was there before is returned. It and
        where it redirects to must be at one of the `remote_hosts`. Errors: as `Library.remote`.
        """
        if not self.remote_hosts:
            raise NotFound(
                "Images of other servers are not shown here; the setting remote_hosts names those that are"
            )
        with _told(url):
            self._remote.rules.check_url("url", url)
        known = self._known(url)
        if known is not None and known.is_fresh(ttl_s):
            return known.image
        failure = self._failures.get(url)
        if failure is not None:
            return _before(known, failure)
        with self._turn(url, may_wait=known is None) as is_mine:
            if known is not None and not is_mine:
                return known.image  # somebody asks right now
            known = self._known(url)
            if known is not None and known.is_fresh(ttl_s):
                return known.image  # somebody asked meanwhile
            failure = self._failures.get(url)
            if failure is not None:  # somebody asked meanwhile, in vain
                return _before(known, failure)
            try:
                return self._renewed(url, store, self._remote)
            except LazypixError as error:
                if not isinstance(error, _OURS):
                    self._failures.set(url, error, 1)
                return _before(known, error)

    def _known(self, url: str) -> Known | None:
        """Return what is known of a URL, if its image is there."""
        source = self._rows.get(url)
        if source is None:
            return None
        try:
            return Known(source=source, image=self._get(source.ident))
        except UnknownImage:
            return None

    def _renewed(self, url: str, store: Store, downloader: Downloader) -> Image:
        """Return the image that is at a URL now: the same one, when its bytes are the same."""
        known = self._known(url)
        with self._downloaded(url, downloader, known) as (incoming, done):
            if known is not None and not done.changed:
                self._rows.touch(url, known.image.ident, datetime.now(UTC))
                return known.image
            if known is not None and incoming.sha256 == known.image.sha256:
                image = known.image
            else:
                before = known.image if known is not None else None
                image = store(incoming, filename=_filename(incoming, done), before=before)
            self._record(url, image, done.validators)
        return image

    @contextmanager
    def _downloaded(
        self, url: str, downloader: Downloader, known: Known | None = None
    ) -> Iterator[tuple[Incoming, Downloaded]]:
        with _told(url), self._incoming.new() as incoming:
            asked = _validators(known.source) if known is not None else None
            done = downloader.get(url, incoming.write, max_bytes=self._max_bytes, known=asked)
            incoming.finish()
            yield incoming, done

    def _record(self, url: str, image: Image, said: Validators) -> None:
        source = Source(
            url=url, ident=image.ident, landed=said.url, etag=said.etag, last_modified=said.last_modified,
            checked=datetime.now(UTC),
        )  # fmt: skip
        self._rows.put(source)

    @contextmanager
    def _turn(self, url: str, *, may_wait: bool = True) -> Iterator[bool]:
        """Hold the turn for a source among all machines; False: it was not to be had."""
        key = f"source/{digest_of(url)}"
        with self._locks.hold(key, patience_s=self._patience_s, may_wait=lambda: may_wait) as held:
            if self._holder is None or not held:
                yield held
                return
            with self._holder.hold(key, patience_s=self._patience_s, may_wait=lambda: may_wait) as turn:
                yield turn.is_ours()


def _before(known: Known | None, failure: LazypixError) -> Image:
    """Return what was there before a source failed, if that is still to be shown; else tell how it failed."""
    if known is None or isinstance(failure, _FINAL):
        if isinstance(failure, _OURS):
            raise failure
        raise type(failure)(str(failure))  # a new one: this may be raised by many threads
    return known.image


def _validators(source: Source) -> Validators:
    from lazypix.outbound.downloading import Validators

    return Validators(url=source.landed, etag=source.etag, last_modified=source.last_modified)


def _filename(incoming: Incoming, done: Downloaded) -> str | None:
    return downloaded_name(done.url, done.headers.get("content-disposition", ""), _format_of(incoming))


def _format_of(incoming: Incoming) -> Format | None:
    with incoming.path.open("rb") as file:
        return sniff(file.read(SNIFF_BYTES))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Have the log tell why nothing was taken from a URL; its path and query may be secrets."""
    try:
        yield
    except LazypixError as error:
        log.warning("nothing was taken from %s: %s", split_url(url).hostname or "a URL", error)
        raise
