"""API keys: what one looks like, how it is kept, and what it may do. Pure.

A key is `lpx_<id>_<secret><check>`. The id is public: it stands in lists and logs, and on what was uploaded. The
secret is 32 random bytes, and only its SHA-256 is kept. A slow hash would be of no use: those defend short secrets,
which people think of, against guessing; nobody guesses 256 random bits, and every request would pay for it. The check
is a CRC-32, so that a key that was cut or mistyped is refused before anybody looks it up.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from lazypix.errors import BadRequest

Scope = Literal["upload", "delete", "admin"]
"""What a key may do: store images and order sizes; delete and drop; and see all that there is.

`admin` holds the others."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PREFIX = "lpx"
_TEXT = re.compile(rf"{_PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})([A-Za-z0-9_-]{{6}})", re.ASCII)


def allows(scopes: Collection[str], needed: Scope) -> bool:
    """Tell whether a key with these scopes may do what needs `needed`."""
    return needed in scopes or "admin" in scopes


def check_scopes(given: Iterable[str]) -> tuple[Scope, ...]:
    """Return scopes in the order of `SCOPES`, each once.

    Raises:
        BadRequest: there is none, or one that does not exist.
    """
    wanted = tuple(given)
    for scope in wanted:
        if scope not in SCOPES:
            raise BadRequest(f"scope={scope[:40]!r} is not accepted; accepted: {', '.join(SCOPES)}")
    if not wanted:
        raise BadRequest(f"A key needs a scope; accepted: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key in the hand of who uses it."""

    id: str
    """12 hex digits, public."""
    secret: str = field(repr=False)
    """32 bytes, base64 for URLs."""

    @classmethod
    def new(cls) -> ApiKey:
        """Return a key that nobody has."""
        return cls(id=secrets.token_hex(6), secret=secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """Return the key that a text is, or None when it is none: whether it was ever made is not known here."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        key = cls(id=match[1], secret=match[2])
        return key if hmac.compare_digest(key.text, text) else None

    @property
    def text(self) -> str:
        """The whole key, as it is given out once and sent with every request. A secret."""
        plain = f"{_PREFIX}_{self.id}_{self.secret}"
        check = base64.urlsafe_b64encode(zlib.crc32(plain.encode()).to_bytes(4))
        return plain + check.decode().rstrip("=")

    @property
    def hash(self) -> str:
        """What is kept of the secret: its SHA-256, 64 hex digits."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, hash: str) -> bool:
        """Tell whether this is the key of which `hash` was kept. In constant time."""
        return hmac.compare_digest(self.hash, hash)
