"""Who may do what: whoever has a key for it; without keys everybody on this machine, but no page of another site."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from lazypix.catalog.key_rows import KeyRecord, KeyRows
from lazypix.credentials import ApiKey, Scope, allows
from lazypix.errors import Forbidden, Unauthorized
from lazypix.http import Answer
from lazypix.setting_rules import is_loopback
from lazypix.settings import Settings

REMEMBERED_S = 2.0
"""How long a key of the catalog is believed without looking: so long a revoked one may still do all but upload."""

_MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who a request is from."""

    caller: str = ""
    """What tells callers apart, and tells no secret; empty where no key is needed."""
    record: KeyRecord | None = None
    """The key, if it is one of the catalog."""

    @property
    def owner(self) -> str | None:
        """Whose the images are that it uploads: the id of the catalog's key."""
        return self.record.id if self.record else None


class WriteAccess:
    """Decides whether a request may do what needs a scope. Safe to use from many threads.

    Keys stand in the settings, which may do everything, or in the catalog, with scopes and quotas. Once a key was
    made there, requests without one are refused, also on loopback, and also when it is revoked: the end of a key must
    not open the door to everybody.
    """

    def __init__(self, settings: Settings, keys: KeyRows) -> None:
        self._settings_keys = {
            key: _fingerprint(key) for key in (k.get_secret_value().encode() for k in settings.api_keys)
        }
        self._required = settings.writes_need_keys
        self._base = split_url(settings.base_url)
        self._remembered = _Remembered(keys)
        self._keys = keys

    def check(self, headers: Mapping[str, str], scope: Scope) -> Writer:
        """Refuse a request that may not do what needs `scope`; the names of `headers` in lower case.

        May ask the catalog, and count there: not for an event loop.

        Raises:
            Unauthorized: keys are needed, and the request has none that is good.
            Forbidden: its key is not for this; or none is needed, and a browser sent it for a page of another site.
            TooManyRequests: its key has a quota of requests a minute, and made them.
        """
        writer = self.identify(headers)
        if writer is None:
            return Writer()
        if writer.record is not None:
            if not allows(writer.record.scopes, scope):
                has = ", ".join(writer.record.scopes)
                raise Forbidden(
                    f"This needs an API key with the scope {scope}; the key {writer.record.id} has: {has}"
                )
            if writer.record.quotas.per_minute:
                self._keys.count_request(writer.record.id)
        return writer

    def identify(self, headers: Mapping[str, str]) -> Writer | None:
        """Return whose key a request has, whatever it may do; None when no key is needed.

        Raises:
            Unauthorized, Forbidden: as `check`.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        writer = self._owner_of(given.strip()) if scheme.lower() == "bearer" else None
        if writer is not None:
            return writer
        if self._required or self._remembered.any():
            raise Unauthorized("This needs an API key; accepted: the header Authorization: Bearer <key>")
        if "origin" in headers:
            self._check_origin(headers["origin"], headers.get("host", ""))
        return None

    def _owner_of(self, given: str) -> Writer | None:
        token = given.encode("latin-1", errors="replace")
        matching = [who for key, who in self._settings_keys.items() if hmac.compare_digest(token, key)]
        if matching:
            return Writer(caller=matching[0])
        key = ApiKey.parse(given)
        if key is None:
            return None
        record = self._remembered.find(key.id)
        if record is None or not key.matches(record.hash) or record.revoked is not None:
            return None
        return Writer(caller=record.id, record=record)

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


def preflight() -> Answer:
    """Return what browsers are told before they let pages of other sites ask.

    They may ask for everything: what a page may do is decided by its key, its ticket or its origin, when it asks.
    """
    allowed = (
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", b"authorization, content-type, range, if-none-match, lazypix-ticket"),
        (b"access-control-max-age", b"86400"),
    )
    return Answer(status=204, headers=allowed)


class _Remembered:
    """What the catalog said of keys some seconds ago, also that there is none of an id."""

    def __init__(self, keys: KeyRows) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._found: dict[str, tuple[float, KeyRecord | None]] = {}
        self._any = (0.0, False)

    def find(self, id: str) -> KeyRecord | None:
        now = time.monotonic()
        with self._lock:
            until_s, record = self._found.get(id, (0.0, None))
        if until_s > now:
            return record
        record = self._keys.find(id)
        with self._lock:
            if len(self._found) >= _MOST_REMEMBERED:  # somebody tries ids
                self._found.clear()
            self._found[id] = (now + REMEMBERED_S, record)
        return record

    def any(self) -> bool:
        """Tell whether there is, or was, a key; that there is one is true for ever."""
        until_s, any_ = self._any
        now = time.monotonic()
        if not any_ and until_s <= now:
            any_ = self._keys.any()
            self._any = (now + REMEMBERED_S, any_)
        return any_


def _fingerprint(key: bytes) -> str:
    """Return what tells keys apart, and does not tell the key."""
    return hashlib.sha256(b"lazypix caller\0" + key).hexdigest()[:12]


def split_url(url: str) -> SplitResult:
    """Take a URL apart; all parts are empty when it cannot be."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")
