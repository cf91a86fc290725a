"""HTTP as plain values: requests, answers, and the rules of RFC 9110 that turn one into the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lazypix.errors import LazypixError
from lazypix.formats import by_name

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an answer depends on: the raw target, as received, and a few headers."""

    method: str
    path: str
    """Percent-encoded, without the query."""
    query: str = ""
    """Percent-encoded, without the question mark."""
    accept: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    range: str | None = None
    if_range: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a GET without conditions and ranges."""
        return self.method == "GET" and not (
            self.if_none_match or self.range or self.if_modified_since or self.if_match or self.if_unmodified_since
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBody:
    """A part of a file as a body: `length` bytes from `start`."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBody:
    """A part of a blob that comes in pieces: `length` bytes from `start`, which `read(start, length)` yields."""

    read: Callable[[int, int], Iterator[bytes]]
    start: int
    length: int


Body = bytes | FileBody | StreamBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished HTTP response: what a face sends, once. The body of a HEAD request's answer is already empty."""

    status: int
    headers: Headers
    body: Body = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """A whole image in one form, before conditions and ranges are looked at."""

    ident: str
    body: Body
    etag: str
    """Strong, with its quotation marks."""
    modified: datetime
    """UTC."""
    headers: Headers
    """Everything but Content-Length, Content-Range, ETag and Last-Modified."""

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.length

    @property
    def validators(self) -> Headers:
        """The headers ETag and Last-Modified."""
        return _validators(self.etag, self.modified)


# --- conditions and ranges -------------------------------------------------------------------------------------


def respond(whole: Representation, request: Request) -> Answer:
    """Answer a GET or HEAD request for a representation: 200, 206, 304, 412 or 416.

    Source: RFC 9110, 13.2.2 (precedence of preconditions) and 14.2 (Range).
    """
    if (done := settled(whole, request)) is not None:
        return done
    part = _range(request, whole)
    if part is None:
        return _answer(200, whole, 0, whole.size, request.method)
    start, stop = part
    if start >= stop:
        unsatisfiable = (b"content-range", b"bytes */%d" % whole.size)
        return Answer(status=416, headers=(unsatisfiable, *_NO_BODY, *SAFE))
    content_range = (b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, whole.size))
    return _answer(206, whole, start, stop, request.method, content_range)


def settled(whole: Representation, request: Request) -> Answer | None:
    """Return the answer 304 or 412 when a precondition settles the request, whatever the body is."""
    status = precondition(request, whole.etag, whole.modified)
    if status is None:
        return None
    return not_modified(whole.etag, whole.modified, whole.headers) if status == 304 else _failed(whole)


def precondition(request: Request, etag: str, modified: datetime | None) -> int | None:
    """Return 304 or 412 when a precondition settles the request, None when the resource is to be sent.

    A date is looked at only when the corresponding entity-tag header was not sent. `modified` may be None when only
    the entity tag is known yet.

    Source: RFC 9110, 13.2.2.
    """
    if request.if_match is not None:
        if not _matches(request.if_match, etag, weak=False):
            return 412
    elif modified and (limit := _date(request.if_unmodified_since)) is not None and _seconds(modified) > limit:
        return 412
    if request.if_none_match is not None:
        return 304 if _matches(request.if_none_match, etag, weak=True) else None
    if modified and (since := _date(request.if_modified_since)) is not None and _seconds(modified) <= since:
        return 304
    return None


def not_modified(etag: str, modified: datetime | None, headers: Headers) -> Answer:
    """Return a 304 with the headers that it must repeat. Source: RFC 9110, 15.4.5."""
    kept = tuple(h for h in headers if h[0] in (b"cache-control", b"vary", b"access-control-allow-origin"))
    return Answer(status=304, headers=(*_validators(etag, modified), *kept))


def _answer(
    status: int, whole: Representation, start: int, stop: int, method: str, *more: tuple[bytes, bytes]
) -> Answer:
    length = (b"content-length", b"%d" % (stop - start))
    headers = (*whole.headers, *whole.validators, (b"accept-ranges", b"bytes"), length, *more)
    return Answer(status=status, headers=headers, body=b"" if method == "HEAD" else _slice(whole.body, start, stop))


def _failed(whole: Representation) -> Answer:
    return Answer(status=412, headers=(*whole.validators, *_NO_BODY, *SAFE))


_NO_BODY: Headers = ((b"content-length", b"0"), (b"cache-control", b"no-store"))


def _slice(body: Body, start: int, stop: int) -> Body:
    if isinstance(body, FileBody | StreamBody):
        return replace(body, start=body.start + start, length=stop - start)
    return body if stop - start == len(body) else body[start:stop]


def _validators(etag: str, modified: datetime | None) -> Headers:
    tag = (b"etag", etag.encode())
    return (tag, (b"last-modified", http_date(modified))) if modified else (tag,)


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    """Compare the entity tags of a header with a strong one. Source: RFC 9110, 8.8.3.2."""
    if header.strip() == "*":
        return True
    tags = (tag.strip() for tag in header.split(","))
    return any((tag.removeprefix("W/") if weak else tag) == etag for tag in tags)


# 1000 digits are more than any file has; more than 4300 would be more than int() reads.
_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,1000})-([0-9]{0,1000})\s*", re.ASCII | re.IGNORECASE)


def _range(request: Request, whole: Representation) -> tuple[int, int] | None:
    """Return the wanted part as (start, stop), empty when there is no such part, None for the whole.

    Several ranges at once are answered with the whole, as RFC 9110, 14.2 allows.
    """
    if request.range is None or request.method != "GET":
        return None
    match = _RANGE.fullmatch(request.range.strip())
    if match is None or match.groups() == ("", "") or not _if_range(request.if_range, whole):
        return None
    first, last = match.groups()
    if not first:
        return max(0, whole.size - int(last)), whole.size
    if last and int(last) < int(first):
        return None  # invalid, so to be ignored
    return int(first), min(whole.size, int(last) + 1) if last else whole.size


def _if_range(header: str | None, whole: Representation) -> bool:
    if header is None:
        return True
    if header.strip().startswith(('"', "W/")):
        return header.strip() == whole.etag
    return _date(header) == _seconds(whole.modified)


def http_date(moment: datetime) -> bytes:
    """Write a moment as HTTP does. Source: RFC 9110, 5.6.7."""
    return format_datetime(moment.astimezone(UTC), usegmt=True).encode()


def _date(header: str | None) -> int | None:
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


# --- content negotiation ---------------------------------------------------------------------------------------

# In the server's order of preference. A wildcard does not opt in to the formats marked False: clients that cannot
# read AVIF or WebP send `image/*` and `*/*` too.
_OFFERED = (("avif", False), ("webp", False), ("jpg", True), ("png", True), ("gif", True))
_MEDIA_TYPES = {name: by_name(name).mime for name, _ in _OFFERED}


@lru_cache(maxsize=1024)
def ranked_formats(accept: str | None) -> tuple[str, ...]:
    """Return the names of the formats a client takes, best first, by its `Accept` header.

    Higher q-values first; among equals AVIF, WebP, JPEG, PNG, GIF. Few different results exist, which makes this
    the class under which negotiated answers are cached.

    Source: RFC 9110, 12.5.1.
    """
    weights = _weights(accept if accept and accept.strip() else "*/*")
    anything = weights.get("image/*", weights.get("*/*", 0.0))
    scored = []
    for order, (name, wild) in enumerate(_OFFERED):
        q = weights.get(_MEDIA_TYPES[name], anything if wild else 0.0)
        if q > 0:
            scored.append((-q, order, name))
    return tuple(name for _, _, name in sorted(scored))


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weights[media] = next((_q(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights


def _q(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0  # unreadable: take it for a refusal, never for a preference


# --- headers and the JSON envelope -----------------------------------------------------------------------------


def content_disposition(filename: str) -> bytes:
    """Return an inline disposition with a filename that no client can misread.

    Source: RFC 6266, 4.3 and appendix D.
    """
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", filename)
    header = f'inline; filename="{plain}"'
    if plain != filename:
        header += f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return header.encode("ascii")


SAFE: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"),
    (b"access-control-allow-origin", b"*"),
)
"""Headers of every answer: a stored file must never run as a page of this origin."""


def envelope(status: int, content: Any, *headers: tuple[bytes, bytes]) -> Answer:
    """Return the JSON answer of the ImageServer API: `{"status": "ok"|"error", "content": …}`."""
    body = json.dumps({"status": "ok" if status < 400 else "error", "content": content}, default=str).encode()
    return json_answer(status, body, *headers)


def json_answer(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
    """Return an answer with a JSON body that no cache keeps unless `headers` say so."""
    kind = (b"content-type", b"application/json")
    length = (b"content-length", b"%d" % len(body))
    control = () if any(name == b"cache-control" for name, _ in headers) else ((b"cache-control", b"no-store"),)
    return Answer(status=status, headers=(kind, length, *control, *SAFE, *headers), body=body)


def error_answer(error: LazypixError) -> Answer:
    """Return the envelope that tells of an error, with `Retry-After` where asking again makes sense."""
    headers: list[tuple[bytes, bytes]] = [(b"lazypix-error", error.code.encode())]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="lazypix"'))
    if error.status == 404:
        headers.append((b"cache-control", b"public, max-age=10"))
    return envelope(error.status, str(error), *headers)
