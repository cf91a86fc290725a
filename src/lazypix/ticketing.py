"""Uploads by ticket: an application lets somebody upload one image, without a key and without standing in between.

The image comes to us in a form, or goes straight to the store by an address that the store signed, and is then
finalised. What lies in the store before that is nobody's image: it has a key of its own, is verified like any upload,
and goes when the ticket's time is over.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lazypix.catalog import Image
from lazypix.catalog.job_values import NewJob
from lazypix.dialects.imageserver import Size, parse_sizes
from lazypix.errors import (
    BadRequest,
    BlobMissing,
    Busy,
    IdentTaken,
    LazypixError,
    NotFound,
    SettingsError,
    StoreFailed,
    TooLarge,
)
from lazypix.formats import READABLE, by_extension
from lazypix.incoming import Incoming
from lazypix.keys import check_ident, new_ident
from lazypix.orders import Orders, Wish, warm_jobs
from lazypix.originals.uploading import Accepted, Uploads, as_json
from lazypix.plan import Limits, check_size
from lazypix.resumable import Where
from lazypix.signing.links import KeyRing
from lazypix.signing.tickets import LONGEST_S, Ticket, seal, unseal
from lazypix.stores import UploadAddress

log = logging.getLogger("lazypix")

USUAL_S = 600.0
"""For so many seconds a ticket is good when nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a ticket shall allow; see `Library.ticket`."""

    ident: str | None = None
    expires_s: float = USUAL_S
    max_bytes: int | None = None
    max_pixels: int | None = None
    formats: Sequence[str] = ()
    sizes: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    owner: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.expires_s <= LONGEST_S:
            raise BadRequest(f"expires_s={self.expires_s:g} is not accepted; accepted: 1 to {LONGEST_S} seconds")
        for name in ("max_bytes", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadRequest(f"{name}={value} is not accepted; accepted: 1 or more")


class Tickets:
    """Signs tickets, and does what they allow. Safe to use from many threads."""

    def __init__(self, keys: KeyRing, uploads: Uploads, orders: Orders, where: Where, limits: Limits) -> None:
        self._keys = keys
        self._uploads = uploads
        self._orders = orders
        self._catalog = where.catalog
        self._store = where.store
        self._scheme = where.keys
        self._incoming = where.incoming
        self._limits = limits

    @property
    def can_sign(self) -> bool:
        """Whether there are keys."""
        return bool(self._keys.keys)

    def sign(self, terms: Terms) -> str:
        """Return a ticket. Errors: as `Library.ticket`."""
        if not self.can_sign:
            raise SettingsError(
                "Tickets are signed with ticket_keys, and there are none; `lazypix url-key` makes one"
            )
        self._sizes(terms.sizes)
        ident = new_ident() if terms.ident is None else check_ident(terms.ident)
        if terms.ident is not None:
            self.check_unused(ident)
        if terms.owner is not None:
            self._catalog.keys.check_room(terms.owner, 1)
        ticket = Ticket(
            ident=ident,
            expires_at=math.ceil(time.time() + terms.expires_s),
            max_bytes=terms.max_bytes,
            max_pixels=terms.max_pixels,
            formats=tuple(_format(name) for name in terms.formats),
            sizes=terms.sizes,
            metadata=as_json(terms.metadata),
            owner=terms.owner,
        )
        return seal(self._keys, ticket)

    def open(self, text: str) -> Ticket:
        """Return what a ticket allows. No I/O.

        Raises:
            TicketRefused: it was not signed here as it is, or has expired.
        """
        return unseal(self._keys, text, now_s=time.time())

    def max_bytes(self, ticket: Ticket) -> int:
        """Return how large the file may be."""
        return min(ticket.max_bytes or self._limits.max_bytes, self._limits.max_bytes)

    def check_unused(self, ident: str) -> None:
        """Make sure that an ident was not given yet; for a ticket's, that the ticket was not used.

        Raises:
            IdentTaken: it was.
        """
        if self._catalog.states([ident]):
            raise _taken(ident)

    def receive(self, ticket: Ticket) -> Incoming:
        """Begin to receive the image of a ticket."""
        return self._incoming.new(max_bytes=self.max_bytes(ticket))

    def add(self, ticket: Ticket, incoming: Incoming, *, filename: str | None = None) -> Image:
        """Store what was received, as the ticket says. Errors: as `Library.add`."""
        sizes = self._sizes(ticket.sizes)
        return self._uploads.add(
            incoming, ident=ticket.ident, filename=filename, metadata=ticket.metadata, owner=ticket.owner,
            accepted=Accepted(formats=ticket.formats, max_pixels=ticket.max_pixels), jobs=self._jobs(ticket, sizes),
        )  # fmt: skip

    # --- straight to the store ---------------------------------------------------------------------------------

    def upload_address(self, text: str) -> UploadAddress:
        """Return where the store takes the image of a ticket, by PUT; then it has to be finalised.

        The store does not count bytes: `max_bytes` is looked at when it is finalised.

        Raises:
            BadRequest: the store has no such addresses.
            TicketRefused: as `open`.
        """
        ticket = self.open(text)
        left_s = max(1, ticket.expires_at - math.ceil(time.time()))
        found = None
        if self._store.capabilities.takes_uploads:
            found = self._store.upload_address(self._key(ticket), expires_s=left_s)
        if found is None:
            raise BadRequest("This store takes nothing from clients; accepted: S3, Google Cloud Storage, Azure")
        return found

    def finalise(self, text: str) -> Image:
        """Make an image of what was put to the store for a ticket; a second time returns the same image.

        Raises:
            TicketRefused: as `open`.
            NotFound: nothing was put there.
            IdentTaken: the ident was given to another image.
            Busy: somebody else is finalising it.
            LazypixError: it is refused, as by `Library.add`; what was put there is removed.
        """
        ticket = self.open(text)
        image = self._finished(ticket) or self._taken_in(ticket)
        with suppress(StoreFailed):  # else it goes when the ticket's time is over
            self._store.delete(self._key(ticket))
        return image

    def sweep(self, *, older_than_s: float) -> int:
        """Remove what was put to the store for tickets that expired so long ago, or longer; return how many."""
        if not self.can_sign or not self._store.capabilities.takes_uploads:
            return 0
        removed, latest = 0, time.time() - older_than_s
        for blob in self._store.list(self._scheme.staging):
            until = self._scheme.staged_until(blob.key)
            if until is not None and until <= latest:
                removed += self._store.delete(blob.key)
        return removed

    def _finished(self, ticket: Ticket) -> Image | None:
        """Return the image that the ticket became already."""
        found = self._catalog.entries([ticket.ident]).get(ticket.ident)
        if found is None:
            return None
        image, state = found
        if state == "ready" and image.owner == ticket.owner and image.metadata == ticket.metadata:
            return image
        if state in ("pending", "withdrawn"):
            raise Busy(f"{ticket.ident} is being uploaded at this moment; ask again")
        raise _taken(ticket.ident)

    def _taken_in(self, ticket: Ticket) -> Image:
        with self._incoming.new(max_bytes=self.max_bytes(ticket)) as incoming:
            try:
                self._fetch(ticket, incoming)
                return self.add(ticket, incoming)
            except (IdentTaken, NotFound):  # perhaps by somebody who finalises it, too, or is through with it
                image = self._finished(ticket)
                if image is None:
                    raise
                return image
            except LazypixError as error:
                if error.status < 500:
                    with suppress(StoreFailed):
                        self._store.delete(self._key(ticket))
                raise

    def _fetch(self, ticket: Ticket, incoming: Incoming) -> None:
        key, most = self._key(ticket), self.max_bytes(ticket)
        try:
            if self._store.head(key).size > most:
                raise TooLarge(f"The image is over the limit of {most} bytes ({most >> 20} MiB)")
            for piece in self._store.read(key):
                incoming.write(piece)
        except BlobMissing:
            raise NotFound("Nothing was uploaded with this ticket yet, or it was refused") from None

    def _key(self, ticket: Ticket) -> str:
        return self._scheme.staged(ticket.ident, ticket.expires_at)

    def _sizes(self, text: str) -> list[Size]:
        sizes = parse_sizes(text)
        for size in sizes:
            check_size(size.transform, self._limits)
        return sizes

    def _jobs(self, ticket: Ticket, sizes: Sequence[Size]) -> Callable[[Image], list[NewJob]]:
        transforms, caller = [size.transform for size in sizes], ticket.owner or "ticket"
        wish = Wish(sizes=tuple(transform.text for transform in transforms), caller=caller)
        return lambda image: self._orders.wished(
            image.ident, wish, *warm_jobs(image.ident, transforms, caller=caller)
        )


class TicketVerbs:
    """What a `Library` does with tickets."""

    tickets: Tickets

    def ticket(
        self,
        *,
        ident: str | None = None,
        expires_s: float = USUAL_S,
        max_bytes: int | None = None,
        max_pixels: int | None = None,
        formats: Sequence[str] = (),
        sizes: str = "",
        metadata: Mapping[str, Any] | None = None,
        owner: str | None = None,
    ) -> str:
        """Sign a ticket, with which somebody without a key uploads one image: `POST /upload?ticket=…`.

        It is good for `expires_s` seconds, up to a week. The image gets the `ident` (without, a new one), may have so
        many bytes, pixels, and one of the `formats`; `sizes` are made ahead, as in a form; it counts for `owner`.

        Raises:
            SettingsError: there are no `ticket_keys`.
            BadRequest, BadIdent, BadTransform, BadUpload, IdentTaken, QuotaExceeded, Unauthorized: it cannot be.
        """
        return self.tickets.sign(
            Terms(
                ident=ident, expires_s=expires_s, max_bytes=max_bytes, max_pixels=max_pixels, formats=formats,
                sizes=sizes, metadata=metadata or {}, owner=owner,
            )
        )  # fmt: skip

    def finalise(self, ticket: str) -> Image:
        """Make an image of what was put straight to the store, at `tickets.upload_address(ticket)`.

        A second time returns the same image.

        Raises:
            TicketRefused: it was not signed here as it is, or has expired.
            NotFound: nothing was put there.
            LazypixError: the image is refused or cannot be stored, as by `add`; `IdentTaken`: another has the ident.
        """
        return self.tickets.finalise(ticket)


def _format(name: str) -> str:
    found = by_extension(name.strip().lower())
    if found is None or found.name not in READABLE:
        raise BadRequest(f"formats={name[:40]!r} is not accepted; accepted: {', '.join(READABLE)}")
    return found.name


def _taken(ident: str) -> IdentTaken:
    return IdentTaken(f"The ident {ident} is taken: the ticket was used, or another image has it")
