"""Signed links: who has one may ask for what its scope says, until it expires. Pure, and in constant time.

::

    /image/300x200/<ident>.webp?s=<key id>.<expiry>.<scope>.<mac>

`s` is the last parameter of the query. The expiry is in seconds since 1970, written in base 36, or 0 for never. The
scope says what the MAC covers, and so what may be changed: `x` nothing at all, `<W>x<H>` and `p` everything but the
image. The MAC is HMAC-SHA256 in base64url over `DOMAIN` and

- for `x`: the raw path and query, up to the dot before the MAC;
- else: the path of the image without size and extension, and `?s=`, up to the same dot.

Neither can be taken for the other, since both end in the scope; nor can a path for a query, since a path has no `?`.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote_plus

from lazypix.errors import BadRequest, BadSignature
from lazypix.signing.messages import SHORTEST_SECRET

DOMAIN = b"lazypix link 1\n"
"""Stands before all that links' keys sign, so that no other signature can be taken for a link's."""
PARAMETER = "s"
SCOPE_RULE = "exact, presets, or <width>x<height> for any size up to it"

_EXACT, _PRESETS = "x", "p"
_BOX = r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}"
_VALUE = re.compile(
    rf"(?P<key>[a-z0-9]{{1,16}})\.(?P<expiry>0|[1-9a-z][0-9a-z]{{0,7}})\.(?P<scope>x|p|{_BOX})\.(?P<mac>[A-Za-z0-9_-]{{43}})",
    re.ASCII,
)
_KEY_ID = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
_SECRET = re.compile(r"[!-+\--~]+", re.ASCII)  # printable, without spaces and commas: lists are separated by these
_PLAIN = re.compile(r"[!-~]*")
_KEY_RULE = f"<id>:<secret>, an id of 1 to 16 of a-z 0-9 and a secret of at least {SHORTEST_SECRET} characters"
_NOBODYS = bytes(32)  # what is compared with when there is no key of that id: nobody can tell by the time it takes
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkKey:
    """What signs links: a secret, and the public name by which links say that it was this one.

    Raises:
        ValueError: the id is no id, or the secret is too short.
    """

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.id) or len(self.secret) < SHORTEST_SECRET:
            raise ValueError(f"a key must be {_KEY_RULE}")

    @classmethod
    def parse(cls, text: str) -> LinkKey:
        """Read `<id>:<secret>`; the secret's own characters are its bytes.

        Raises:
            ValueError: it is malformed or too short; the message does not hold it.
        """
        name, colon, secret = text.partition(":")
        if not colon or not _SECRET.fullmatch(secret):
            raise ValueError(f"a key must be {_KEY_RULE}, without spaces and commas")
        return cls(id=name, secret=secret.encode())

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not pickled; make it of the settings again")


def new_key(id: str | None = None) -> str:
    """Return a fresh key as `LinkKey.parse` reads it: 32 random bytes.

    Raises:
        ValueError: the id is malformed.
    """
    text = f"{secrets.token_hex(3) if id is None else id}:{secrets.token_urlsafe(32)}"
    LinkKey.parse(text)
    return text


@dataclass(frozen=True, slots=True)
class LinkScope:
    """What may be asked for with a link, as `code` says: `x`, `p`, or `<width>x<height>`."""

    code: str

    @classmethod
    def parse(cls, text: str) -> LinkScope:
        """Read a scope as a person writes it: `exact`, `presets` or `<width>x<height>`.

        Raises:
            BadRequest: it is none of them.
        """
        code = {"exact": _EXACT, "presets": _PRESETS}.get(text, text)
        if not re.fullmatch(rf"x|p|{_BOX}", code, re.ASCII):
            raise BadRequest(f"scope={text[:32]!r} is not accepted; accepted: {SCOPE_RULE}")
        return cls(code)

    @property
    def is_exact(self) -> bool:
        """Whether nothing of the address may be changed."""
        return self.code == _EXACT

    @property
    def box(self) -> tuple[int, int] | None:
        """Pixels that no result may exceed; None: the scope is no box."""
        if self.code in (_EXACT, _PRESETS):
            return None
        width, _, height = self.code.partition("x")
        return int(width), int(height)


EXACT = LinkScope(_EXACT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a signature says, once it is known to be one of ours."""

    scope: LinkScope
    expires_at: int | None
    """Seconds since 1970 from which on it is not good any more; None: it does not expire."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of links: the first one signs, all of them verify.

    So a key is changed without breaking links: put the new one first, and take the old one off when the last links
    that it signed have expired, or may break.

    Raises:
        ValueError: two keys have one id.
    """

    keys: tuple[LinkKey, ...] = ()

    def __post_init__(self) -> None:
        ids = [key.id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError(f"two keys have one id ({', '.join(ids)})")

    @classmethod
    def of(cls, texts: Iterable[str]) -> KeyRing:
        """Read keys, each `<id>:<secret>`.

        Raises:
            ValueError: as `LinkKey.parse`, or two have one id.
        """
        return cls(tuple(LinkKey.parse(text) for text in texts))

    def sign(
        self, target: str, *, scope: LinkScope = EXACT, expires_at: int | None = None, subject: str | None = None
    ) -> str:
        """Return a raw target (path and perhaps query, below the mount prefix) with its signature.

        `subject` is the path that a scope other than exact is bound to.

        Raises:
            BadRequest: the target is not percent-encoded, or signed already; or the moment lies before 1970.
        """
        if expires_at is not None and expires_at <= 0:  # written down as 0, which says: never
            raise BadRequest(f"expires_at={expires_at} is not accepted; accepted: seconds since 1970")
        key = self.keys[0]  # there is one: whoever signs has made sure
        if not _is_plain(target) or "#" in target:
            raise BadRequest(f"{target[:64]!r} cannot be signed; accepted: a percent-encoded path and query")
        if split_query(target.partition("?")[2])[1] is not None:
            raise BadRequest("The address is signed already")
        unsigned = f"{target}{'&' if '?' in target else '?'}{PARAMETER}="
        claims = f"{key.id}.{_base36(expires_at or 0)}.{scope.code}"
        covered = unsigned if scope.is_exact else f"{subject}?{PARAMETER}="
        return f"{unsigned}{claims}.{_mac(key.secret, covered + claims)}"

    def verify(self, path: str, query: str, *, subject: str | None = None) -> Link | None:
        """Return what the signature of a raw target says; None when it has none. Expiry is for the caller to judge.

        With `subject` None the scope must be exact.

        Raises:
            BadSignature: there is one, and it is not right.
        """
        value = split_query(query)[1]
        if value is None:
            return None
        given = _VALUE.fullmatch(value)
        if given is None or not _is_plain(path + query) or "?" in path:
            raise _refusal()
        scope = LinkScope(given["scope"])
        covered = f"{path}?{query.removesuffix(value)}" if scope.is_exact else f"{subject}?{PARAMETER}="
        secret = next((key.secret for key in self.keys if key.id == given["key"]), None)
        mac = _mac(_NOBODYS if secret is None else secret, covered + value.rpartition(".")[0])
        # The texts are compared: the last character of base64 has two bits that decoding would drop.
        is_ours = hmac.compare_digest(mac, given["mac"])
        if secret is None or not is_ours or (subject is None and not scope.is_exact):
            raise _refusal()
        return Link(scope=scope, expires_at=int(given["expiry"], 36) or None)


def split_query(query: str) -> tuple[str, str | None]:
    """Take the signature off a raw query: what stands before it, and its value; None when there is none.

    Raises:
        BadSignature: there are two, or it is not the last parameter, or its name is written in another way.
    """
    parts = query.split("&")
    named = [part for part in parts if unquote_plus(part.partition("=")[0]) == PARAMETER]
    if not named:
        return query, None
    last = parts[-1]
    if len(named) > 1 or not last.startswith(f"{PARAMETER}="):
        raise BadSignature(f"The signature must be the one parameter {PARAMETER}= at the end of the address")
    return query[: -len(last) - 1], last.removeprefix(f"{PARAMETER}=")


def _mac(secret: bytes, text: str) -> str:
    digest = hmac.digest(secret, DOMAIN + text.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _base36(number: int) -> str:
    text = ""
    while number > 0:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"


def _is_plain(text: str) -> bool:
    """Tell whether a target is as HTTP has it, so that nothing in it looks like the end of a line."""
    return _PLAIN.fullmatch(text) is not None


def _refusal() -> BadSignature:
    # One text for every reason: which part was wrong is of use to forgers only.
    return BadSignature(
        "The signature of this address is not right; accepted: an address exactly as it was given out"
    )
