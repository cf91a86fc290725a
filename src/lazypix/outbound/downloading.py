"""Downloads of what others name: a few redirects, each of them checked, bytes counted, one deadline for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from urllib.parse import urljoin

import httpx

from lazypix.errors import BadRequest, SourceFailed, SourceMissing, TooLarge
from lazypix.outbound.client import CONNECT_S, TOTAL_S, OutboundClient
from lazypix.outbound.connecting import Deadline, LookUp, look_up
from lazypix.outbound.decoding import decoded
from lazypix.outbound.rules import Rules, check_hosts, split_url

MOST_REDIRECTS = 3

_REDIRECTS = (301, 302, 303, 307, 308)
_MISSING = (404, 410)
_LONGEST_VALIDATOR = 1024

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What a server said of what it sent, so that it can be asked whether that has changed."""

    url: str
    """Of what was sent, behind all redirects; nothing else is compared with it."""
    etag: str | None = None
    last_modified: str | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that make a request conditional. Source: RFC 9110, 13.1."""
        pairs = (("if-none-match", self.etag), ("if-modified-since", self.last_modified))
        return {name: value for name, value in pairs if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """How a download went."""

    url: str
    """Where the last redirect led."""
    changed: bool
    """False: the server says that it is what the validators were about; nothing was written."""
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""

    @property
    def validators(self) -> Validators:
        """What to ask with the next time."""
        etag, last_modified = (_kept(self.headers.get(name)) for name in ("etag", "last-modified"))
        return Validators(url=self.url, etag=etag, last_modified=last_modified)


class Downloader:
    """Downloads from servers that others name. Safe to use from many threads.

    Every request is one of an `OutboundClient`: its address is checked when it is connected to, it tells nothing of
    us but a name, and knows nothing of other requests.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        connect_s: float = CONNECT_S,
        total_s: float = TOTAL_S,
        look_up: LookUp = look_up,
    ) -> None:
        """Without rules the public internet is downloaded from; `total_s` is for a download with its redirects."""
        self.rules = rules or Rules()
        self._connect_s, self._total_s, self._look_up = connect_s, total_s, look_up

    @cached_property
    def _client(self) -> OutboundClient:
        return OutboundClient(self.rules, connect_s=self._connect_s, total_s=self._total_s, look_up=self._look_up)

    def only(self, hosts: Sequence[str]) -> Downloader:
        """Return one that downloads from these hosts (patterns) only; otherwise the same.

        Raises:
            ValueError: see `rules.check_hosts`.
        """
        rules = replace(self.rules, only=check_hosts(hosts))
        return Downloader(rules, connect_s=self._connect_s, total_s=self._total_s, look_up=self._look_up)

    def get(self, url: str, write: Write, *, max_bytes: int, known: Validators | None = None) -> Downloaded:
        """Write what is at a URL, piece by piece. What was written before an error is worth nothing.

        Up to three redirects are followed; from https to http none. With `known` validators the server may say that
        nothing has changed.

        Raises:
            BadRequest: the URL, or one that it redirects to, is malformed.
            AddressRefused: one of them leads where nothing is asked.
            SourceMissing: the server says that there is nothing.
            SourceFailed: it says something else, compresses in a way that is not known, or redirects too often.
            TooLarge: it is over `max_bytes`, as it comes or decompressed.
            Unreachable: nobody answered properly in time, or less came than was announced.
        """
        deadline = Deadline(self._total_s)
        at, redirects = url.partition("#")[0], 0
        while True:
            conditions = known.conditions if known is not None and known.url == at else {}
            with (
                _of_redirect(url if redirects else None),
                self._client.answering("GET", at, headers=conditions, deadline=deadline) as answer,
            ):
                if answer.status_code not in _REDIRECTS:
                    changed = not (conditions and answer.status_code == HTTPStatus.NOT_MODIFIED)
                    if changed:
                        _write(answer, at, write, max_bytes)
                    return Downloaded(url=at, changed=changed, headers=dict(answer.headers))
            if redirects == MOST_REDIRECTS:
                raise SourceFailed(f"{_host(url)} redirects more than {MOST_REDIRECTS} times")
            at, redirects = _redirected(at, answer.headers.get("location", "")), redirects + 1


def _write(answer: httpx.Response, url: str, write: Write, max_bytes: int) -> None:
    """Write an answer's body, as long as it is the whole of something, and not too much."""
    status = answer.status_code
    if status in _MISSING:
        raise SourceMissing(f"{_host(url)} answered with status {status}: there is nothing at this URL")
    if status != HTTPStatus.OK:
        raise SourceFailed(f"{_host(url)} answered with status {status}; accepted: 200")
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > max_bytes):
        raise _too_large(url, max_bytes)
    came = _counted(answer.iter_raw(), url, max_bytes)
    for piece in _counted(decoded(came, answer.headers.get("content-encoding", "")), url, max_bytes):
        write(piece)


def _counted(pieces: Iterator[bytes], url: str, max_bytes: int) -> Iterator[bytes]:
    """Yield pieces while they are not over the limit together."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise _too_large(url, max_bytes)
        yield piece


def _too_large(url: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"What {_host(url)} sends is over the limit of {max_bytes} bytes ({max_bytes >> 20} MiB)")


def _redirected(url: str, location: str) -> str:
    """Return where a redirect leads. What was asked for over TLS is not taken from somewhere without it."""
    if not location:
        raise SourceFailed(f"{_host(url)} redirects, and does not say where")
    try:
        target = urljoin(url, location).partition("#")[0]
    except ValueError:
        return location  # no URL: refused as such
    if split_url(url).scheme == "https" and split_url(target).scheme == "http":
        raise SourceFailed(f"{_host(url)} redirects from https to http; accepted: https")
    return target


@contextmanager
def _of_redirect(url: str | None) -> Iterator[None]:
    """Have a refusal say that it is about where `url` redirected to."""
    try:
        yield
    except BadRequest as error:
        if url is None:
            raise
        raise type(error)(f"{_host(url)} redirects: {error}") from None


def _host(url: str) -> str:
    return split_url(url).hostname or "the source"


def _kept(validator: str | None) -> str | None:
    """Return a validator as it may be kept: printable, and short."""
    if validator is None or not validator.isascii() or not validator.isprintable():
        return None
    return validator if len(validator) <= _LONGEST_VALIDATOR else None
