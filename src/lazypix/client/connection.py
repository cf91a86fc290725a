"""Requests to a server: what can be sent again is, and errors are those that the library raises itself."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from lazypix.client.backoff import Backoff
from lazypix.errors import (
    BadRequest,
    Busy,
    Forbidden,
    LazypixError,
    NotFound,
    SettingsError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from lazypix.outbound.rules import split_url

_CONNECT_S = 10.0
_SHOWN = 300
_BY_STATUS: dict[int, type[LazypixError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 413: TooLarge, 429: TooManyRequests,
    502: Unreachable, 503: Busy, 504: Unreachable,
}  # fmt: skip
"""For answers that are not lazypix' own, but a proxy's in front of it."""

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered, when it is no error."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def content(self) -> Any:
        """What the JSON envelope holds.

        Raises:
            Unreachable: there is none.
        """
        try:
            return json.loads(self.body)["content"]
        except (ValueError, TypeError, KeyError):
            raise Unreachable("The answer is not lazypix'; is the address that of a lazypix server?") from None


class Connection:
    """Connections to one server. Safe to use from many threads.

    `key` is sent with every request to it, and to no other server.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout_s: float,
        verify: bool | ssl.SSLContext,
        backoff: Callable[[], Backoff],
    ) -> None:
        parts = split_url(url)
        if "@" in url:
            raise SettingsError("server: a key does not belong into the address")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise SettingsError(
                f"server={url.partition('?')[0][:_SHOWN]!r} is not accepted; accepted: https://<host>[:<port>][/<path>]"
            )
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
            raise SettingsError("key: it holds what no key holds (spaces, control characters), or nothing")
        self.url = url.rstrip("/")
        self.backoff = backoff
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            verify=verify,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Pairs = (),
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request until it is answered. Only for what may as well be carried out twice.

        Raises:
            LazypixError: the server's own error, or the last failure to reach it.
        """
        backoff = self.backoff()
        while True:
            try:
                return self.once(method, path, params=params, form=form, headers=headers)
            except LazypixError as error:
                backoff.wait(error)

    def carry_out(self, method: str, path: str, *, params: Pairs = (), done_when: type[LazypixError]) -> Reply | None:
        """Send a request as `request`, for a change that is refused when it was made before, with `done_when`.

        Return None when an earlier attempt broke off, and the next one was refused so.
        """
        backoff, broke_off = self.backoff(), False
        while True:
            try:
                return self.once(method, path, params=params)
            except done_when:
                if not broke_off:
                    raise
                return None
            except LazypixError as error:
                broke_off = broke_off or isinstance(error, Unreachable)
                backoff.wait(error)

    def once(
        self,
        method: str,
        path: str,
        *,
        params: Pairs = (),
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
    ) -> Reply:
        """Send a request once. A GET follows redirects: the store itself may have what is asked for.

        Raises:
            Unreachable: it was not answered; whether it was carried out is not known.
            LazypixError: the server's own error.
        """
        try:
            answer = self._client.request(
                method, self.url + path, params=list(params) or None, data=form, content=body, headers=headers,
                follow_redirects=method == "GET",
            )  # fmt: skip
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.url} did not answer properly ({type(error).__name__})") from error
        if not answer.is_success:
            raise _error_of(answer)
        return Reply(headers=answer.headers, body=answer.content)


def _error_of(answer: httpx.Response) -> LazypixError:
    """Return the error that a server tells of, as the library would have raised it."""
    code = answer.headers.get("lazypix-error")
    kind = _kinds().get(code or "") or _BY_STATUS.get(answer.status_code, LazypixError)
    error: LazypixError = kind.__new__(kind, _text_of(answer))  # whatever else its own way of being made wants
    wait = answer.headers.get("retry-after", "")
    if wait.isascii() and wait.isdecimal():
        error.retry_after_s = min(int(wait[:9]), 10**6)
    return error


def _text_of(answer: httpx.Response) -> str:
    try:
        text = json.loads(answer.content)["content"]
    except (ValueError, TypeError, KeyError):
        text = None
    if isinstance(text, str) and text:
        return text
    return f"The server answered {answer.status_code} {answer.reason_phrase}".rstrip()


def _kinds() -> dict[str, type[LazypixError]]:
    """Return the errors by their codes."""
    found, todo = {LazypixError.code: LazypixError}, [LazypixError]
    while todo:
        kinds = todo.pop().__subclasses__()
        todo += kinds
        for kind in kinds:
            found.setdefault(kind.code, kind)
    return found
