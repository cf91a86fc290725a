"""Idents and the keys under which blobs are stored."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from lazypix.errors import BadIdent

_IDENT = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
IDENT_RULE = "1 to 128 of the characters A-Z a-z 0-9 _ -"
"""What an ident may look like, in words for error messages."""


def new_ident() -> str:
    """Return a fresh ident: a UUID version 7 as 32 hex digits, so that idents sort by time.

    Source: RFC 9562, section 5.7.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def check_ident(ident: str) -> str:
    """Return `ident` unchanged when it may name an image.

    Raises:
        BadIdent: it is empty, too long, or holds a character that is not allowed.
    """
    if not _IDENT.fullmatch(ident):
        shown = ident if len(ident) <= 64 else ident[:64] + "…"
        raise BadIdent(f"Bad ident {shown!r}; accepted: {IDENT_RULE}")
    return ident


SIDECAR = "image.json"
"""Name of the blob beside an original that tells what only the catalog knows: filename, metadata, time of upload."""


_PARTS, _STAGED = "upload.parts", "upload.staged"
# A dot is in no ident, and no shard: what lies below is nobody's image, and goes with none.
_STAGED_NAME = re.compile(r"([0-9]{1,12})-([A-Za-z0-9_-]{1,128})", re.ASCII)
_UPLOAD = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob belongs: to an image, and under which name."""

    ident: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyScheme:
    """How keys are spelled: `<prefix><shard>/<ident>/<name>`.

    `prefix` goes before everything (for instance `"img/"`); `shard` is how many of the ident's last
    characters (the random end of a generated ident) make a folder of their own, 0 for none.
    """

    prefix: str = ""
    shard: int = 0

    def folder(self, ident: str) -> str:
        """Return the prefix under which all blobs of an image lie, with its trailing slash."""
        shard = f"{ident[-self.shard :]}/" if self.shard else ""
        return f"{self.prefix}{shard}{ident}/"

    def original(self, ident: str, extension: str) -> str:
        """Return the key of the original."""
        return f"{self.folder(ident)}origin.{extension}"

    def variant(self, ident: str, stem: str, extension: str) -> str:
        """Return the key of a variant; `stem` is its canonical text without the format."""
        return f"{self.folder(ident)}{stem}.{extension}"

    def sidecar(self, ident: str) -> str:
        """Return the key of the original's sidecar."""
        return f"{self.folder(ident)}{SIDECAR}"

    def parts(self, upload: str) -> str:
        """Return the prefix under which the pieces of an upload lie, with its trailing slash."""
        return f"{self.prefix}{_PARTS}/{upload}/"

    def upload_of(self, key: str) -> str | None:
        """Return the id of the upload of which this is a piece, or None for the key of anything else."""
        folder, _, name = key.rpartition("/")
        upload = folder.rpartition("/")[2]
        return upload if name and _UPLOAD.fullmatch(upload) and self.parts(upload) == f"{folder}/" else None

    @property
    def staging(self) -> str:
        """The prefix under which lies what clients put there themselves, with its trailing slash."""
        return f"{self.prefix}{_STAGED}/"

    def staged(self, ident: str, expires_at: int) -> str:
        """Return the key under which a client puts what shall become an image, until so many seconds since 1970."""
        return f"{self.staging}{expires_at}-{ident}"

    def staged_until(self, key: str) -> int | None:
        """Return until when something may be put under this key, or None for the key of anything else."""
        match = _STAGED_NAME.fullmatch(key.removeprefix(self.staging)) if key.startswith(self.staging) else None
        return int(match[1]) if match else None

    def parse(self, key: str) -> Place | None:
        """Return whose blob this is, or None for a key that this scheme does not give."""
        folder, _, name = key.rpartition("/")
        ident = folder.rpartition("/")[2]
        if not name or not _IDENT.fullmatch(ident) or self.folder(ident) != f"{folder}/":
            return None
        return Place(ident, name)
