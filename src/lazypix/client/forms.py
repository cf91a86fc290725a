"""A parcel in one request: a form, written while it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from lazypix.client.connection import Connection
from lazypix.client.parcel import Parcel, Told


def send_form(connection: Connection, parcel: Parcel, told: Told) -> None:
    """Upload a parcel by `POST /upload`, once. Errors: as `Connection.once`."""
    boundary = f"lazypix-{secrets.token_hex(16)}"
    head, tail = _head(parcel, boundary), f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        yield from told.following(parcel.read(0, parcel.size))
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head) + parcel.size + len(tail)),
    }
    connection.once("POST", "/upload", headers=headers, body=body())


def _head(parcel: Parcel, boundary: str) -> bytes:
    """Return what stands before the image. The filename is a field: there any name can be written as it is."""
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parcel.fields.items()
    )
    file = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n'
    return (fields + file).encode("utf-8", errors="replace")
