"""Stored images that somebody else sends: the store, by a redirect to it, or nginx in front, by X-Accel-Redirect.

Both are `Handover`s: they answer for a stored image without its body having been read.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol
from urllib.parse import quote

from lazypix.errors import SettingsError
from lazypix.http import SAFE, Answer, Headers, Representation, Request, settled
from lazypix.stores import BlobStore

StoredImages = Literal["proxy", "redirect", "permanent"]
"""The values of the setting `stored_images`."""

_EXAMPLE_KEY = "0/origin.jpg"
_SIGNED_SHARES = 4
"""Of the time that a signed address is good, caches get two parts; one is for our own memory, one for who follows."""
_EMPTY: Headers = ((b"content-length", b"0"),)


class Handover(Protocol):
    """Answers for a stored image by handing it over to who sends it. Safe to use from many threads; no I/O."""

    @property
    def good_for_s(self) -> float:
        """How many seconds an answer may be given again."""
        ...

    def answer(
        self, key: str, whole: Representation, request: Request, *, left_s: float | None = None
    ) -> Answer | None:
        """Answer a GET or HEAD request for what lies in the store under `key`; the body of `whole` is empty.

        `left_s` is how many seconds the link is still good for by which it was asked for; None: it does not expire.

        None when it cannot be handed over, and must be sent by ourselves.
        """
        ...


class StoreRedirect:
    """Redirects to the store: to its public address, or where it has none, to one that it signs for `expires_s`.

    What is not stored yet is not redirected but sent, once: nobody waits until it is stored. A redirect is permanent
    (301) only if it was asked for and always holds: not to a signed address, and not where another client is sent to
    another format, and not by a link that expires. One to a signed address is kept by caches for half of the address'
    time at most, so that who follows it late finds it good. An address is not signed for longer than the link is good
    by which it was asked for; a public one stays public.
    """

    def __init__(self, store: BlobStore, *, permanent: bool, expires_s: int, max_age_s: int) -> None:
        self._store = store
        self._permanent = permanent
        self._expires_s = expires_s
        self._max_age_s = max_age_s
        self._is_public = store.url(_EXAMPLE_KEY, expires_s=None) is not None

    @property
    def good_for_s(self) -> float:
        return math.inf if self._is_public else self._expires_s / _SIGNED_SHARES

    def answer(
        self, key: str, whole: Representation, request: Request, *, left_s: float | None = None
    ) -> Answer | None:
        if (done := settled(whole, request)) is not None:
            return done
        good_for_s = self._expires_s if left_s is None else min(self._expires_s, int(left_s))
        if not self._is_public and good_for_s < 1:
            return None
        url = self._store.url(key, expires_s=None if self._is_public else good_for_s)
        if url is None:
            return None
        vary = tuple(header for header in whole.headers if header[0] == b"vary")
        kept_s = math.inf if self._is_public and left_s is None else 2 * good_for_s // _SIGNED_SHARES
        control = (b"cache-control", b"public, max-age=%d" % min(self._max_age_s, kept_s))
        always = self._is_public and not vary and left_s is None
        status = 301 if self._permanent and always else 302
        return Answer(status=status, headers=((b"location", url.encode()), control, *vary, *_EMPTY, *SAFE))


class NginxHandover:
    """Has nginx send the file: names it in `X-Accel-Redirect`, below `prefix`.

    The preconditions of a request are ours, by our entity tag; its range is left to nginx, which compares `If-Range`
    with the entity tag that it passes on. What demands a certain state (`If-Match`, `If-Unmodified-Since`) is not
    handed over: nginx would look at it once more, with the file's own time.

    Source: nginx, ngx_http_proxy_module, proxy_ignore_headers ("X-Accel-Redirect"); its value is percent-encoded
    since 1.5.9.
    """

    good_for_s = math.inf

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def answer(
        self,
        key: str,
        whole: Representation,
        request: Request,
        *,
        left_s: float | None = None,  # noqa: ARG002
    ) -> Answer | None:
        if (done := settled(whole, request)) is not None:
            return done
        if request.if_match is not None or request.if_unmodified_since is not None:
            return None
        target = (b"x-accel-redirect", (self._prefix + quote(key, safe="/,=:")).encode())
        return Answer(status=200, headers=(*whole.headers, *whole.validators, target, *_EMPTY))


def choose_handover(
    store: BlobStore, *, stored_images: StoredImages, expires_s: int, max_age_s: int, accel_redirect: str
) -> Handover | None:
    """Return the handover that the settings of these names want of a store; None for no handover.

    Raises:
        SettingsError: they want two, or one that this store cannot give.
    """
    given = f"stored_images={stored_images!r}"
    if accel_redirect:
        if stored_images != "proxy":
            raise SettingsError(f"{given} and accel_redirect={accel_redirect!r} exclude each other; drop one of them")
        if store.local_path(_EXAMPLE_KEY) is None:
            raise SettingsError(f"accel_redirect={accel_redirect!r} needs a store that is a folder of this machine")
        return NginxHandover(accel_redirect)
    if stored_images == "proxy":
        return None
    if all(store.url(_EXAMPLE_KEY, expires_s=seconds) is None for seconds in (None, expires_s)):
        raise SettingsError(
            f"{given} needs a store from which clients can get images themselves: one that has a public URL, or one "
            "that signs addresses (S3, Google Cloud Storage, Azure)"
        )
    return StoreRedirect(store, permanent=stored_images == "permanent", expires_s=expires_s, max_age_s=max_age_s)
