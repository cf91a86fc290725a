"""From a request for an image to an answer: the one way that every face goes.

A face calls `cached` (memory only, never blocks), then `begin` (store and catalog; may block on I/O), which gives
an answer or, when a variant must be made, a `Making` whose future the face waits for in its own manner.
`answer` does all three for faces that may block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import PurePath

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Image
from lazypix.dialects import Dialect, Target, Wanted
from lazypix.dialects.native import MOUNT
from lazypix.dialects.ordered import DIALECTS, parse
from lazypix.errors import BlobMissing, LazypixError, NotFound
from lazypix.formats import by_name
from lazypix.http import (
    SAFE,
    Answer,
    FileBody,
    Headers,
    Representation,
    Request,
    content_disposition,
    error_answer,
    not_modified,
    precondition,
    ranked_formats,
    respond,
)
from lazypix.library import Library
from lazypix.plan import ENGINE_VERSION, check_size
from lazypix.transform import Transform
from lazypix.variants import Variant

READ_WHOLE_BYTES = 1024 * 1024
"""What is stored is read whole up to this size, and sent as bytes; what is larger is sent from its file."""

_BOOKKEEPING_BYTES = 1500  # what an answer takes in memory besides its body: headers, key, entry

_VARY: Headers = ((b"vary", b"accept"),)
_HIT: Headers = ((b"server-timing", b"cache;desc=hit"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A variant that is being made: wait for `future`, then `finish` gives the answer."""

    future: Future[Variant]
    finish: Callable[[Variant], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hit:
    """A cached representation, and the finished answer to a plain GET for it."""

    whole: Representation
    plain: Answer


class Delivery:
    """Answers requests for images of one library. Safe to use from many threads.

    `max_age_s` is what caches are told; an ident is never given to other bytes, so only a deletion ends an
    answer's truth. Answers in this process' memory live for `cache_ttl_s` seconds: as long may another process
    serve what was just deleted.
    """

    def __init__(
        self,
        library: Library,
        *,
        cache_bytes: int = 128 * 1024 * 1024,
        cache_ttl_s: float = 5.0,
        max_age_s: int = 86_400,
        dialects: tuple[Dialect, ...] = DIALECTS,
    ) -> None:
        self._library = library
        self._dialects = dialects
        stale_s = 7 * max_age_s
        control = f"public, max-age={max_age_s}, stale-while-revalidate={stale_s}"
        self._common: Headers = ((b"cache-control", control.encode()), *SAFE)
        # Under (path, query), or (path, query, formats the client takes) when the answer depends on `Accept`.
        self._cache: MemoryCache[_Hit] = MemoryCache(max_bytes=cache_bytes, ttl_s=cache_ttl_s)
        # Clients that revalidate must not need the image itself in memory: ident and answer under (path, query,
        # formats the client takes, If-None-Match).
        self._unchanged: MemoryCache[tuple[str, Answer]] = MemoryCache(max_bytes=cache_bytes // 16, ttl_s=cache_ttl_s)

    def cached(self, request: Request) -> Answer | None:
        """Answer from memory, or return None. Never blocks."""
        hit = self._cache.get((request.path, request.query))
        if hit is None:
            hit = self._cache.get((request.path, request.query, ranked_formats(request.accept)))
            if hit is None:
                known = self._unchanged.get(_condition(request))
                return known[1] if known is not None else None
        return hit.plain if request.is_plain else respond(hit.whole, request)

    def begin(self, request: Request) -> Answer | Making:
        """Answer from store and catalog, or begin to make the variant.

        Raises:
            LazypixError: the request cannot be fulfilled; `http.error_answer` tells the client.
        """
        wanted = parse(Target.split(request.path, request.query, MOUNT), self._dialects)
        check_size(wanted.transform, self._library.limits)
        image = self._library.get(wanted.ident)  # a row, mostly from memory: a deleted image is never "not modified"
        negotiated = wanted.transform.format is None and wanted.source_format is None
        headers = self._common
        if negotiated:
            headers = (*headers, *_VARY)
            wanted = _decided(wanted, choose_format(ranked_formats(request.accept), image, wanted.transform))
        if (unchanged := self._not_modified(request, wanted, headers)) is not None:
            return unchanged  # nothing was read from the store, and nothing is made
        if wanted.transform.is_identity:
            original = self._original(request, image, wanted, headers, negotiated=negotiated)
            if original is not None:
                return original
        return self._variant(request, image, wanted, headers, negotiated=negotiated)

    def answer(self, request: Request) -> Answer:
        """Answer a request; blocks while a variant is made. Errors become answers."""
        try:
            found = self.cached(request) or self.begin(request)
            return found if isinstance(found, Answer) else found.finish(found.future.result())
        except LazypixError as error:
            return error_answer(error)

    def forget(self, ident: str) -> None:
        """Drop the answers of a deleted image from this process' memory."""
        self._cache.delete_where(lambda hit: hit.whole.ident == ident)
        self._unchanged.delete_where(lambda known: known[0] == ident)

    def _not_modified(self, request: Request, wanted: Wanted, headers: Headers) -> Answer | None:
        if request.if_none_match is None:
            return None
        tag = etag(wanted)
        if precondition(request, tag, None) != 304:
            return None
        answer, condition = not_modified(tag, None, headers), _condition(request)
        self._unchanged.set(condition, (wanted.ident, answer), len(repr(condition)) + _BOOKKEEPING_BYTES)
        return answer

    def _original(
        self, request: Request, image: Image, wanted: Wanted, headers: Headers, *, negotiated: bool
    ) -> Answer | None:
        """Answer with the original itself when that is what is asked for; else None."""
        asked = wanted.source_format or wanted.transform.format
        if asked != image.format:
            if wanted.source_format is not None:
                raise NotFound(f"The original of {image.ident} is {image.format}, not {wanted.source_format}")
            return None
        path = self._library.original_path(image)
        body: bytes | FileBody
        if path is None or image.size <= READ_WHOLE_BYTES:
            body = self._library.original(image.ident)
        else:
            body = FileBody(path=path, start=0, length=image.size)
        name = filename(image, "", by_name(image.format).extension)
        whole = self._representation(image, wanted, body, by_name(image.format).mime, name, headers)
        return self._finished(request, whole, b"store;desc=original", negotiated=negotiated)

    def _variant(
        self, request: Request, image: Image, wanted: Wanted, headers: Headers, *, negotiated: bool
    ) -> Answer | Making:
        def finish(variant: Variant) -> Answer:
            extension = by_name(variant.transform.format or "").extension
            name = filename(image, variant.transform.stem, extension)
            whole = self._representation(image, wanted, variant.body, variant.media_type, name, headers)
            return self._finished(request, whole, _timing(variant), negotiated=negotiated)

        stored = self._stored(image, wanted)
        if isinstance(stored, FileBody):
            return self._large_variant(request, image, wanted, headers, stored)
        if stored is not None:
            return finish(stored)
        return Making(future=self._library.make(image, wanted.transform).delivered, finish=finish)

    def _stored(self, image: Image, wanted: Wanted) -> Variant | FileBody | None:
        """Return a stored variant, or its file when it is too large to be read whole."""
        try:
            file = self._library.stored_file(image, wanted.transform)
        except BlobMissing:
            return None
        if file is not None and file[1] > READ_WHOLE_BYTES:
            return FileBody(path=file[0], start=0, length=file[1])
        return self._library.stored(image, wanted.transform)

    def _large_variant(
        self, request: Request, image: Image, wanted: Wanted, headers: Headers, body: FileBody
    ) -> Answer:
        found = by_name(wanted.transform.format or "")
        name = filename(image, wanted.transform.stem, found.extension)
        whole = self._representation(image, wanted, body, found.mime, name, headers)
        return self._finished(request, whole, b"store;desc=hit", negotiated=False)

    def _representation(
        self, image: Image, wanted: Wanted, body: bytes | FileBody, media_type: str, name: str, headers: Headers
    ) -> Representation:
        own = (
            (b"content-type", media_type.encode()),
            (b"content-disposition", content_disposition(name)),
        )
        return Representation(
            ident=image.ident, body=body, etag=etag(wanted), modified=image.created, headers=(*own, *headers)
        )

    def _finished(self, request: Request, whole: Representation, timing: bytes, *, negotiated: bool) -> Answer:
        """Keep what is small in memory, and answer with how the work went."""
        if isinstance(whole.body, bytes):
            hit = Representation(
                ident=whole.ident, body=whole.body, etag=whole.etag, modified=whole.modified,
                headers=(*whole.headers, *_HIT),
            )  # fmt: skip
            target: tuple[object, ...] = (request.path, request.query)
            key = (*target, ranked_formats(request.accept)) if negotiated else target
            plain = respond(hit, Request(method="GET", path=request.path))
            size = len(whole.body) + len(request.path) + len(request.query) + _BOOKKEEPING_BYTES
            self._cache.set(key, _Hit(whole=hit, plain=plain), size)
        answer = respond(whole, request)
        return Answer(status=answer.status, headers=(*answer.headers, (b"server-timing", timing)), body=answer.body)


def _condition(request: Request) -> tuple[object, ...] | None:
    """Return what decides whether a client's copy is still good."""
    if request.if_none_match is None:
        return None
    return request.path, request.query, ranked_formats(request.accept), request.if_none_match, request.if_match


def choose_format(ranked: tuple[str, ...], image: Image, transform: Transform) -> str:
    """Choose the format of a negotiated variant among those a client takes, best first.

    Animations stay animated (WebP, GIF); transparency is kept (AVIF, WebP, PNG) unless a background is given;
    the rest is AVIF, WebP or JPEG. A client that takes none of these gets the best that it does take, and one that
    takes nothing at all the most common one.
    """
    if image.frames > 1:
        fitting: tuple[str, ...] = ("webp",) if transform.lossless else ("webp", "gif")
    elif transform.lossless:
        fitting = ("webp", "png")
    elif image.probe.alpha and transform.background is None:
        fitting = ("avif", "webp", "png")
    else:
        fitting = ("avif", "webp", "jpg")
    able = [name for name in ranked if by_name(name).lossless or not transform.lossless]
    return next((name for name in able if name in fitting), next(iter(able), fitting[-1]))


def etag(wanted: Wanted) -> str:
    """Return the strong entity tag of a decided target, known before anything is read or made.

    The ident stands for the original's bytes, which never change.
    """
    format_name = wanted.source_format or wanted.transform.format
    text = f"{ENGINE_VERSION}\n{wanted.ident}\n{wanted.transform.stem}\n{format_name}"
    return f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'


def filename(image: Image, stem: str, extension: str) -> str:
    """Return the name under which a browser saves the image."""
    base = PurePath((image.filename or "").replace("\\", "/")).stem or image.ident
    base = "".join(c for c in base if c.isprintable())[:100].strip() or image.ident
    size = stem.split(",")[0]
    return f"{base}-{size}.{extension}" if "x" in size and "=" not in size else f"{base}.{extension}"


def _decided(wanted: Wanted, name: str) -> Wanted:
    return Wanted(ident=wanted.ident, transform=wanted.transform.as_format(name))


def _timing(variant: Variant) -> bytes:
    """Write a Server-Timing value. Source: W3C Server Timing, section 2."""
    if not variant.timings_ms:
        return b"store;desc=hit"
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in variant.timings_ms).encode()
