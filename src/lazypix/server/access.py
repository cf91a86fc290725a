"""Who may write: whoever has a key; without keys everybody on this machine, but no page of another site."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from lazypix.credentials import Scope
from lazypix.errors import Forbidden, Unauthorized
from lazypix.http import Answer
from lazypix.setting_rules import is_loopback
from lazypix.settings import Settings


class WriteAccess:
    """Decides whether a request may write."""

    def __init__(self, settings: Settings) -> None:
        self._keys = {key: _fingerprint(key) for key in (k.get_secret_value().encode() for k in settings.api_keys)}
        self._base = split_url(settings.base_url)

    def check(self, headers: Mapping[str, str], scope: Scope) -> str:  # noqa: ARG002
        """Refuse a request that may not do what needs `scope`; the names of `headers` in lower case.

        Return who writes: a fingerprint of the key, or nothing where no key is needed.

        Raises:
            Unauthorized: there are API keys, and the request has none of them.
            Forbidden: there are none, and a browser sent the request for a page of another site.
        """
        if self._keys:
            return self._check_key(headers.get("authorization", ""))
        if "origin" in headers:
            self._check_origin(headers["origin"], headers.get("host", ""))
        return ""

    def preflight(self) -> Answer:
        """Return what browsers are told before they let pages of other sites ask."""
        methods = b"GET, HEAD, POST, DELETE, OPTIONS" if self._keys else b"GET, HEAD, OPTIONS"
        allowed = (
            (b"access-control-allow-origin", b"*"),
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", b"authorization, content-type, range, if-none-match"),
            (b"access-control-max-age", b"86400"),
        )
        return Answer(status=204, headers=allowed)

    def _check_key(self, authorization: str) -> str:
        scheme, _, given = authorization.partition(" ")
        token = _raw(given.strip())
        matching = [who for key, who in self._keys.items() if hmac.compare_digest(token, key)]
        if scheme.lower() != "bearer" or not matching:
            raise Unauthorized("Writing needs an API key; accepted: the header Authorization: Bearer <key>")
        return matching[0]

    def _check_origin(self, origin: str, host: str) -> None:
        """Refuse pages of other sites, which somebody on this machine may happen to visit.

        That a page's origin is what the request calls its host does not make it ours: a site can have its own name
        point to this machine (DNS rebinding).
        """
        page = split_url(origin)
        ours = page.netloc == host and is_loopback(page.hostname or "")
        configured = page.netloc != "" and page[:2] == self._base[:2]
        if not (ours or configured):
            raise Forbidden(
                f"Pages of {origin[:200]!r} may not write here; accepted: pages of this server's loopback address, "
                "or of base_url; or set api_keys"
            )


def _fingerprint(key: bytes) -> str:
    """Return what tells keys apart, and does not tell the key."""
    return hashlib.sha256(b"lazypix caller\0" + key).hexdigest()[:12]


def split_url(url: str) -> SplitResult:
    """Take a URL apart; all parts are empty when it cannot be."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _raw(value: str) -> bytes:
    """Return the bytes of a header's value as they came."""
    return value.encode("latin-1", errors="replace")
