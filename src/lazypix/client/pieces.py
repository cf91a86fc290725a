"""A parcel in pieces, by the tus protocol: gone on with after whatever broke, by another process too.

Source: https://tus.io/protocols/resumable-upload, version 1.0.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from contextlib import suppress
from pathlib import Path

from lazypix.client.backoff import is_passing
from lazypix.client.connection import Connection, Reply
from lazypix.client.parcel import Parcel, Told
from lazypix.errors import LazypixError, NotFound, OffsetMismatch, Unreachable

_FILES = "/files/"
_TUS = {"Tus-Resumable": "1.0.0"}
_PIECE = _TUS | {"Content-Type": "application/offset+octet-stream"}


class Notes:
    """Where uploads that are under way are noted, so that another process can go on: a JSON file.

    Of several processes that write at once the last one's notes are kept; what is lost is begun anew.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def find(self, name: str) -> str | None:
        """Return the id of the upload of this name."""
        found = self._read().get(name)
        return found if isinstance(found, str) else None

    def note(self, name: str, upload: str | None) -> None:
        """Keep the id of an upload, or with None forget it."""
        if self._path is None:
            return
        noted = self._read()
        if upload is None:
            noted.pop(name, None)
        else:
            noted[name] = upload
        fresh = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(noted), encoding="utf-8")
        fresh.replace(self._path)

    def _read(self) -> dict[str, object]:
        if self._path is None:
            return {}
        try:
            noted = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}


class PiecewiseUpload:
    """One parcel on its way in pieces of `piece_bytes`."""

    def __init__(self, connection: Connection, parcel: Parcel, told: Told, *, piece_bytes: int) -> None:
        self._connection = connection
        self._parcel = parcel
        self._told = told
        self._piece_bytes = piece_bytes

    def send(self, notes: Notes, name: str) -> str:
        """Upload the parcel, or what is missing of it; return the image's ident. `name` is its in the notes.

        Raises:
            LazypixError: the server's own error, or the last failure to reach it.
        """
        noted = notes.find(name)
        if noted is not None:
            with suppress(NotFound):  # it was not gone on with for too long: begun anew
                return self._noted(notes, name, noted)
        with suppress(NotFound):  # it has ended, and the answer that says why was lost: sent once more it is told
            return self._noted(notes, name, self._begin())
        return self._noted(notes, name, self._begin())

    def _noted(self, notes: Notes, name: str, upload: str) -> str:
        notes.note(name, upload)
        try:
            ident = self._go_on(upload)
        except LazypixError as error:
            if not is_passing(error):
                notes.note(name, None)
            raise
        notes.note(name, None)
        return ident

    def _begin(self) -> str:
        """Begin an upload; return its id."""
        described = ",".join(
            f"{name} {base64.b64encode(value.encode('utf-8', errors='replace')).decode()}"
            for name, value in self._parcel.fields.items()
        )
        headers = _TUS | {"Upload-Length": str(self._parcel.size), "Upload-Metadata": described}
        reply = self._connection.request("POST", _FILES, headers=headers)
        return reply.headers.get("location", "").rstrip("/").rpartition("/")[2]

    def _go_on(self, upload: str) -> str:
        backoff, path = self._connection.backoff(), _FILES + upload
        position: int | None = None
        while True:
            try:
                reply = self._ask(path) if position is None else self._send_piece(path, position)
            except OffsetMismatch as error:  # somebody else goes on with it too, or an answer was lost
                position = None
                backoff.wait(error, passing=True)
            except LazypixError as error:
                position = None
                backoff.wait(error)
            else:
                before, position = position, _offset(reply)
                self._told(position)
                if "lazypix-ident" in reply.headers:
                    return reply.headers["lazypix-ident"]
                if before is not None and position > before:
                    backoff.progressed()

    def _ask(self, path: str) -> Reply:
        return self._connection.once("HEAD", path, headers=_TUS)

    def _send_piece(self, path: str, position: int) -> Reply:
        length = min(self._piece_bytes, self._parcel.size - position)
        headers = _PIECE | {"Upload-Offset": str(position), "Content-Length": str(length)}
        body = self._told.following(self._parcel.read(position, length), position)
        return self._connection.once("PATCH", path, headers=headers, body=body)


def _offset(reply: Reply) -> int:
    text = reply.headers.get("upload-offset", "")
    if not text.isascii() or not text.isdecimal():
        raise Unreachable("The answer is not of the tus protocol; is the address that of a lazypix server?")
    return int(text)


def name_of(connection: Connection, parcel: Parcel, ident: str | None) -> str:
    """Return the name of an upload in the notes: the same for the same bytes, of which the same is said."""
    said = (connection.url, parcel.sha256, parcel.size, ident, parcel.filename, parcel.metadata)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
