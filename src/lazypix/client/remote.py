"""`Client`: the methods of `Library`, for a library that is behind a server."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, TypeVar

from lazypix.addresses import Addresses
from lazypix.catalog import Image, Search, StoredVariant
from lazypix.client.backoff import Backoff
from lazypix.client.connection import Connection, Reply
from lazypix.client.forms import send_form
from lazypix.client.parcel import Parcel, Progress, Source, Told, packed
from lazypix.client.pieces import Notes, PiecewiseUpload, name_of
from lazypix.errors import IdentTaken, LazypixError, OriginalDamaged, UnknownImage, Unreachable
from lazypix.keys import check_ident, new_ident
from lazypix.transform import Transform
from lazypix.variants import Variant, natural_format

T = TypeVar("T")

_MIB = 1024 * 1024
_MOST_LISTED = 1000
_MOST_SAID = 16 * 1024
"""Bytes of filename and metadata that go into a header in base64; with more of them an upload is one form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How a client sends, and how it goes on when something breaks."""

    timeout_s: float = 60.0
    """For which nothing may come or go."""
    verify: bool | ssl.SSLContext = True
    """How the server's certificate is verified."""
    resumable_bytes: int = 16 * _MIB
    """An original with more bytes is sent in pieces."""
    piece_bytes: int = 8 * _MIB
    resume: Path | None = None
    """A file in which uploads in pieces are noted, so that another process can go on with them."""
    backoff: Callable[[], Backoff] = field(default=Backoff)


class Client:
    """A library behind a server, with the methods of `Library`. Safe to use from many threads.

    What a method returns and raises is what `Library`'s does; besides it raises `Unreachable`, when the server does
    not answer, `Unauthorized` and `Forbidden`. What fails for a while is sent again, and nothing is done twice by
    that. Close it, or use it as a context manager. libvips is not loaded.
    """

    def __init__(
        self, url: str, key: str | None = None, *, addresses: Addresses | None = None, **options: Any
    ) -> None:
        """Use the server at `url`, such as `https://img.example`, with an API key. Nothing is connected to yet.

        `addresses` write the addresses of images, and sign them where the server wants that; without, they are the
        server's own, not signed. `options` are those of `Sending`.

        Raises:
            SettingsError: `url` or `key` are malformed.
        """
        self._sending = Sending(**options)
        self._connection = Connection(
            url, key, timeout_s=self._sending.timeout_s, verify=self._sending.verify, backoff=self._sending.backoff
        )
        self.addresses = addresses or Addresses(base_url=url)

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    # --- originals ---------------------------------------------------------------------------------------------

    def add(
        self,
        source: Source,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Store an original, as `Library.add`; a large one in pieces, which are gone on with when something breaks.

        `progress` is told how many bytes of how many are sent.

        Raises:
            LazypixError: as `Library.add`; Unreachable.
            OSError: the source cannot be read.
        """
        if isinstance(source, str | Path) and filename is None:
            filename = PurePath(source).name
        chosen = check_ident(ident) if ident is not None else new_ident()
        with packed(source, ident=chosen, filename=filename, metadata=metadata) as parcel:
            told = Told(progress, parcel.size)
            told(0)
            said = sum(len(value.encode("utf-8", errors="replace")) for value in parcel.fields.values())
            if parcel.size > self._sending.resumable_bytes and said <= _MOST_SAID:
                upload = PiecewiseUpload(self._connection, parcel, told, piece_bytes=self._sending.piece_bytes)
                found = upload.send(Notes(self._sending.resume), name_of(self._connection, parcel, ident))
                image = self.get(found)
            else:
                image = self._send_form(parcel, told)
            if image.sha256 != parcel.sha256:
                raise OriginalDamaged(f"The server has other bytes as {image.ident} than were sent")
            told(parcel.size)
            return image

    def _send_form(self, parcel: Parcel, told: Told) -> Image:
        """Send a parcel in one request; again, when that broke off and it is not there."""
        backoff, broke_off = self._connection.backoff(), False
        while True:
            try:
                send_form(self._connection, parcel, told)
            except IdentTaken as error:
                if not broke_off:
                    raise
                image = self._taken_by_us(parcel, error)
                if image is not None:
                    return image
                backoff.wait(error, passing=True)  # the attempt that broke off is being stored, or undone
            except LazypixError as error:
                broke_off = broke_off or isinstance(error, Unreachable)
                backoff.wait(error)
            else:
                return self.get(parcel.ident)

    def _taken_by_us(self, parcel: Parcel, error: IdentTaken) -> Image | None:
        """Return the image that an attempt stored whose answer was lost; None when there is none (yet).

        Raises:
            IdentTaken: the ident was given to other bytes.
        """
        try:
            image = self.get(parcel.ident)
        except UnknownImage:
            return None
        if image.sha256 != parcel.sha256:
            raise error
        return image

    def add_url(
        self,
        url: str,
        *,
        ident: str | None = None,
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Image:
        """Have the server download an original, and store it, as `Library.add_url`.

        Raises:
            LazypixError: as `Library.add_url`; Unreachable, also when it is the source that does not answer.
        """
        chosen = check_ident(ident) if ident is not None else new_ident()
        form = {"url": url, "ident": chosen, "sync": "true"}
        form |= {"filename": filename} if filename else {}
        form |= {"metadata": json.dumps(metadata)} if metadata else {}
        backoff, broke_off = self._connection.backoff(), False
        while True:
            try:
                self._connection.once("POST", "/upload", form=form)
            except IdentTaken:
                if not broke_off or ident is not None:
                    raise
                return self.get(chosen)  # nobody else can have it
            except LazypixError as error:
                broke_off = broke_off or isinstance(error, Unreachable)
                backoff.wait(error)
            else:
                return self.get(chosen)

    def get(self, ident: str) -> Image:
        """Return what is known of an image.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        return _read(Image.from_facts, self._info(ident))

    def variants(self, ident: str) -> list[StoredVariant]:
        """Return the variants of an image that are stored.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        stored = _read(lambda info: list(info["variants"]), self._info(ident))
        return [_read(StoredVariant.from_facts, facts) for facts in stored]

    def _info(self, ident: str) -> Any:
        return self._connection.request("GET", f"/info/{check_ident(ident)}").content

    def list(self, *, limit: int = 100, before: str | None = None, search: Search | None = None) -> list[Image]:
        """Return images, newest first or as `search` says; `before` goes on behind the last ident of the page before.

        Raises:
            BadRequest: the search is malformed.
            UnknownImage: `before` is not the ident of an image.
        """
        asked = (search or Search()).pairs()
        found: list[Image] = []
        while len(found) < limit:
            page = [*asked, ("limit", str(min(limit - len(found), _MOST_LISTED)))]
            page += [("before", check_ident(before))] if before is not None else []
            content = self._connection.request("GET", "/images", params=page).content
            images, before = _read(lambda said: (list(said["images"]), said["before"]), content)
            found += [_read(Image.from_facts, facts) for facts in images]
            if before is None:
                break
        return found

    def original(self, ident: str) -> bytes:
        """Return the original, as it came.

        Raises:
            BadIdent, UnknownImage: there is no such image.
            BadSignature: the server wants signed addresses; see `addresses`.
            OriginalDamaged, BlobMissing: the store does not have it any more as it was.
        """
        image = self.get(ident)
        body = self._at(self.addresses.original(ident, image.format)).body
        if hashlib.sha256(body).hexdigest() != image.sha256:
            raise OriginalDamaged(f"The bytes of {ident} are not those that were uploaded")
        return body

    def delete(self, ident: str, *, for_good: bool = False) -> None:
        """Remove the original and all variants, as `Library.delete`.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        params = [("for_good", "true")] if for_good else []
        path = f"/image/{check_ident(ident)}"
        self._connection.carry_out("DELETE", path, params=params, done_when=UnknownImage)

    def undelete(self, ident: str) -> Image:
        """Have a deleted image back, with all its variants.

        Raises:
            BadIdent, UnknownImage: there is no such image that was deleted and can still be had back.
        """
        path = f"/undelete/{check_ident(ident)}"
        reply = self._connection.carry_out("POST", path, done_when=UnknownImage)
        return self.get(ident) if reply is None else _read(Image.from_facts, reply.content)

    # --- variants ----------------------------------------------------------------------------------------------

    def variant(self, ident: str, transform: Transform | str, *, format: str | None = None) -> Variant:
        """Return a variant, which the server makes if it has to.

        As `Library.variant`, but that the whole image in its own format is the original: it has no other address.

        Raises:
            LazypixError: as `Library.variant`.
            BadSignature: the server wants signed addresses; see `addresses`.
        """
        image = self.get(ident)
        wanted = self.addresses.gate.presets.transform(transform) if isinstance(transform, str) else transform
        if format is not None:
            wanted = wanted.with_format(format)
        decided = wanted if wanted.format else wanted.as_format(natural_format(image, wanted))
        return Variant(image=image, transform=decided, body=self._at(self.addresses.url(ident, decided)).body)

    def _at(self, address: str) -> Reply:
        return self._connection.request("GET", address.removeprefix(self.addresses.base_url))

    def url(
        self,
        ident: str,
        transform: Transform | str = "full",
        *,
        format: str | None = None,
        expires_s: float | None = None,
        scope: str | None = None,
    ) -> str:
        """Return the address of a variant, as `Addresses.url` writes it. No I/O.

        Raises:
            BadIdent, BadTransform: malformed.
        """
        return self.addresses.url(ident, transform, format=format, expires_s=expires_s, scope=scope)

    def purge(self, ident: str) -> tuple[int, int]:
        """Drop the stored variants of an image; return how many, and their bytes.

        Raises:
            BadIdent, UnknownImage: there is no such image.
        """
        content = self._connection.request("DELETE", f"/variants/{check_ident(ident)}").content
        return _read(lambda said: (int(said["dropped"]), int(said["bytes"])), content)

    def check(self) -> None:
        """Ask the server for a sign of life, and it its catalog and store.

        Raises:
            LazypixError: one of them does not answer.
        """
        self._connection.once("GET", "/readyz")


def _read(make: Callable[[Mapping[str, Any]], T], facts: Mapping[str, Any]) -> T:
    try:
        return make(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreachable("The answer is not lazypix'; is the address that of a lazypix server?") from error
