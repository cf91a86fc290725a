"""Upload tickets: who has one may upload one image, as the ticket says, until it expires. Pure, and in constant time.

::

    <key id>.<what it says: JSON, base64url>.<mac>

The MAC is HMAC-SHA256 in base64url over `DOMAIN` and all that stands before its dot. What a ticket says can be read
by whoever has it; it cannot be changed. It names the ident, and no ident is given twice: so it is good for one image.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lazypix.errors import BadRequest, TicketRefused
from lazypix.signing.links import KeyRing

DOMAIN = b"lazypix ticket 1\n"
"""Stands before all that is signed, so that no other signature can be taken for a ticket's."""
LONGEST_TEXT = 8000
"""Characters of the longest ticket: it has to go into a URL."""
LONGEST_S = 7 * 86_400
"""The longest time for which a ticket is good, seconds: as long as S3 signs for."""

_TEXT = re.compile(r"([a-z0-9]{1,16})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})", re.ASCII)
_NOBODYS = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The permission to upload one image."""

    ident: str
    """Of the image that it becomes."""
    expires_at: int
    """Seconds since 1970 from which on it is not good any more."""
    max_bytes: int | None = None
    """Of the file; None: as many as the library takes."""
    max_pixels: int | None = None
    """Of all frames together; None: as many as the library takes."""
    formats: tuple[str, ...] = ()
    """Names of the formats that are taken; empty: all."""
    sizes: str = ""
    """What is made ahead, as in the field `sizes` of a form."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The image's, JSON-able."""
    owner: str | None = None
    """Id of the API key for which it counts."""


_NAMES = {"ident": "i", "expires_at": "e", "max_bytes": "b", "max_pixels": "p", "formats": "f", "sizes": "s",
          "metadata": "m", "owner": "o"}  # fmt: skip


def seal(keys: KeyRing, ticket: Ticket) -> str:
    """Return a ticket as text, signed with the first of the keys.

    Raises:
        BadRequest: it says too much.
    """
    key = keys.keys[0]  # there is one: whoever signs has made sure
    said = {short: getattr(ticket, name) for name, short in _NAMES.items() if getattr(ticket, name)}
    signed = f"{key.id}.{_base64(json.dumps(said, separators=(',', ':')).encode())}"
    text = f"{signed}.{_mac(key.secret, signed)}"
    if len(text) > LONGEST_TEXT:
        raise BadRequest(f"The ticket has {len(text)} characters; accepted: {LONGEST_TEXT}, with shorter metadata")
    return text


def unseal(keys: KeyRing, text: str, *, now_s: float) -> Ticket:
    """Return what a ticket says; `now_s` is in seconds since 1970.

    Raises:
        TicketRefused: it was not signed with one of the keys as it is, or has expired.
    """
    match = _TEXT.fullmatch(text) if len(text) <= LONGEST_TEXT else None
    if match is None:
        raise TicketRefused("The upload ticket is malformed; accepted: one as it was given out")
    secret = next((key.secret for key in keys.keys if key.id == match[1]), None)
    # The texts are compared: the last character of base64 has bits that decoding would drop.
    is_ours = hmac.compare_digest(_mac(secret or _NOBODYS, f"{match[1]}.{match[2]}"), match[3])
    if secret is None or not is_ours:
        raise TicketRefused("The upload ticket was not signed here as it is; accepted: one as it was given out")
    said = json.loads(base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4)))
    values = {name: said[short] for name, short in _NAMES.items() if short in said}
    ticket = Ticket(**(values | {"formats": tuple(values.get("formats", ()))}))
    if now_s >= ticket.expires_at:
        raise TicketRefused(f"The upload ticket expired {now_s - ticket.expires_at:.0f} seconds ago")
    return ticket


def _mac(secret: bytes, text: str) -> str:
    return _base64(hmac.digest(secret, DOMAIN + text.encode(), "sha256"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
