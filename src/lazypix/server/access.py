"""Who may write: whoever has a key; without keys everybody on this machine, but no page of another site."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from lazypix.errors import Forbidden, Unauthorized
from lazypix.http import Answer
from lazypix.settings import Settings, is_loopback


class WriteAccess:
    """Decides whether a request may write."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
        self._base = split_url(settings.base_url)

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that may not write; the names of `headers` in lower case.

        Raises:
            Unauthorized: there are API keys, and the request has none of them.
            Forbidden: there are none, and a browser sent the request for a page of another site.
        """
        if self._keys:
            self._check_key(headers.get("authorization", ""))
        elif "origin" in headers:
            self._check_origin(headers["origin"], headers.get("host", ""))

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

    def _check_key(self, authorization: str) -> None:
        scheme, _, given = authorization.partition(" ")
        matches = [hmac.compare_digest(_raw(given.strip()), key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise Unauthorized("Writing needs an API key; accepted: the header Authorization: Bearer <key>")

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


def split_url(url: str) -> SplitResult:
    """Take a URL apart; all parts are empty when it cannot be."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _raw(value: str) -> bytes:
    """Return the bytes of a header's value as they came."""
    return value.encode("latin-1", errors="replace")
