"""From a request for an image to an answer: the one way that every face goes.

A face calls `cached` (memory only, never blocks), then `begin` (store and catalog; may block on I/O), which gives
an answer or, when a variant must be made, a `Making` whose future the face waits for in its own manner.
`answer` does all three for faces that may block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath

from lazypix.answer_memory import AnswerMemory, Hit, Term
from lazypix.answers import Ticket as SharedTicket
from lazypix.catalog import Image
from lazypix.dialects import Dialect, Target, Wanted
from lazypix.dialects.native import MOUNT
from lazypix.dialects.ordered import parse, with_presets
from lazypix.dialects.remote import REMOTE, parse_remote
from lazypix.errors import BlobMissing, LazypixError, NotFound
from lazypix.formats import by_name
from lazypix.handover import Handover
from lazypix.http import (
    SAFE,
    Answer,
    Body,
    FileBody,
    Headers,
    Representation,
    Request,
    StreamBody,
    content_disposition,
    error_answer,
    not_modified,
    precondition,
    ranked_formats,
    respond,
)
from lazypix.library import Library
from lazypix.negotiation import choose_format
from lazypix.plan import ENGINE_VERSION, check_size, make_plan
from lazypix.signing.links import split_query
from lazypix.variants import Variant

READ_WHOLE_BYTES = 1024 * 1024
"""What is stored is read whole up to this size, and sent as bytes; what is larger is sent from its file."""

_VARY: Headers = ((b"vary", b"accept"),)
_HIT: Headers = ((b"server-timing", b"cache;desc=hit"),)
# An nginx in front that believes answers for a time of its own shall not keep one whose link ends meanwhile.
# Source: nginx, ngx_http_proxy_module, proxy_cache_valid.
_NOT_FOR_NGINX: Headers = ((b"x-accel-expires", b"0"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A variant that is being made: wait for `future`, then `finish` gives the answer."""

    future: Future[Variant]
    finish: Callable[[Variant], Answer]
    leave: Callable[[], None]
    """To be called by a face that waits no longer, because its client is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request, and what is known of it by the time the store is looked at."""

    request: Request
    options: str
    """The raw query without the signature."""
    term: Term
    shared_ticket: SharedTicket | None
    image: Image
    wanted: Wanted
    negotiated: bool


class Delivery:
    """Answers requests for images of one library. Safe to use from many threads.

    `max_age_s` is what caches are told; an ident is never given to other bytes, so only a deletion ends an
    answer's truth. Answers stay in this process' memory for `cache_ttl_s` seconds, or until the image is changed: on
    this machine that is seen at once, and so it is on another one, if that is listened to (`Library.listen`).

    The library's gate says who may ask for what; nothing is looked up for others. An answer to a link that expires is
    remembered by nobody for longer than the link is good: not here, and not by caches, which are told so.

    With a `handover` somebody else sends what is stored. A variant that was made just now is sent by ourselves, that
    one time: it is delivered before it is stored.
    """

    def __init__(
        self,
        library: Library,
        *,
        cache_bytes: int = 128 * 1024 * 1024,
        cache_ttl_s: float = 2.5,
        max_age_s: int = 86_400,
        dialects: tuple[Dialect, ...] | None = None,
        handover: Handover | None = None,
    ) -> None:
        self._library = library
        self._handover = handover
        self._remembers_handovers = handover is not None and handover.good_for_s >= cache_ttl_s
        self._generations = library.generations
        self._sharing = library.sharing if handover is None else None
        self._dialects = with_presets(library.gate.presets) if dialects is None else dialects
        self._max_age_s = max_age_s
        self._remembered_s = max(0.0, cache_ttl_s)
        self._clock = library.gate.clock
        self._memory = AnswerMemory(
            self._generations, max_bytes=cache_bytes, ttl_s=cache_ttl_s, clock=library.gate.clock
        )

    def cached(self, request: Request) -> Answer | None:
        """Answer from memory, or return None. Never blocks."""
        return self._memory.find(request)

    def begin(self, request: Request) -> Answer | Making:
        """Answer from store and catalog, or begin to make the variant.

        Raises:
            LazypixError: the request cannot be fulfilled; `http.error_answer` tells the client.
        """
        asked = self._asked(request)
        self._check_possible(asked)
        if (unchanged := self._not_modified(asked)) is not None:
            return unchanged  # nothing was read from the store, and nothing is made
        if (shared := self._shared(asked)) is not None:
            return self._finished(replace(asked, shared_ticket=None), shared, b"shared;desc=hit")
        if asked.wanted.transform.is_identity:
            original = self._original(asked)
            if original is not None:
                return original
        return self._variant(asked)

    def answer(self, request: Request) -> Answer:
        """Answer a request; blocks while a variant is made. Errors become answers."""
        try:
            found = self.cached(request) or self.begin(request)
            return found if isinstance(found, Answer) else found.finish(found.future.result())
        except LazypixError as error:
            return error_answer(error)

    def _asked(self, request: Request) -> _Asked:
        """Find out what is asked for, whether it may be, and what is known of the image."""
        options, _ = split_query(request.query)
        wanted, expires_at = self._admitted(request, options)
        ticket = self._generations.ticket(wanted.ident)  # before the look: see `Generations`
        shared = self._sharing.ticket(wanted.ident) if self._sharing is not None else None
        image = self._library.get(wanted.ident)  # a row, mostly from memory: a deleted image is never "not modified"
        negotiated = wanted.transform.format is None and wanted.source_format is None
        if negotiated:
            wanted = self._decided(request, image, wanted)
        return _Asked(
            request=request, options=options, term=Term(ticket=ticket, expires_at=expires_at), shared_ticket=shared,
            image=image, wanted=wanted, negotiated=negotiated,
        )  # fmt: skip

    def _admitted(self, request: Request, options: str) -> tuple[Wanted, int | None]:
        """Find out what is asked for, if the gate allows it, and until when; another server's image is made ours."""
        gate, limits = self._library.gate, self._library.limits
        if request.path.startswith(REMOTE):
            remote = parse_remote(request.path, options, gate.presets.transform)
            expires_at = gate.admit_path(request.path, request.query, remote.transform)
            check_size(remote.transform, limits)
            return remote.of(self._library.remote(remote.url).ident), expires_at
        wanted = parse(Target.split(request.path, options, MOUNT), self._dialects)
        expires_at = gate.admit(request.path, request.query, wanted)
        check_size(wanted.transform, limits)
        return wanted, expires_at

    def _decided(self, request: Request, image: Image, wanted: Wanted) -> Wanted:
        """Resolve `Accept` into the transform's format."""
        ranked = ranked_formats(request.accept)
        name = choose_format(ranked, image, wanted.transform, self._library.limits)
        return Wanted(ident=wanted.ident, transform=wanted.transform.as_format(name))

    def _check_possible(self, asked: _Asked) -> None:
        """Refuse what cannot be had of this image, before conditions are looked at: it has no entity tag."""
        wanted, image = asked.wanted, asked.image
        if wanted.source_format is not None and wanted.source_format != image.format:
            raise NotFound(f"The original of {image.ident} is {image.format}, not {wanted.source_format}")
        if not _is_original(asked):
            make_plan(wanted.transform, image.probe, self._library.limits)

    def _not_modified(self, asked: _Asked) -> Answer | None:
        request = asked.request
        if request.if_none_match is None:
            return None
        tag, modified = etag(asked.wanted), asked.image.created
        if precondition(request, tag, modified) != 304:
            return None
        answer = not_modified(tag, modified, self._common(asked))
        self._memory.keep_unchanged(request, asked.term, answer)
        return answer

    def _shared(self, asked: _Asked) -> Representation | None:
        """Return the answer that some machine shared: whoever asked, and by which link."""
        if self._sharing is None or asked.shared_ticket is None:
            return None
        whole = self._sharing.find(asked.shared_ticket, _without_link(asked), negotiated=asked.negotiated)
        if whole is None:
            return None
        own = tuple(header for header in whole.headers if header[0] in (b"content-type", b"content-disposition"))
        return replace(whole, headers=(*own, *self._common(asked)))

    def _common(self, asked: _Asked) -> Headers:
        """Return the headers that all answers have, among them what caches are told."""
        left_s = self._left_s(asked)
        good_for_s = self._good_for_s(asked)
        max_age_s = self._max_age_s if good_for_s is None else min(self._max_age_s, int(good_for_s))
        nginx = _NOT_FOR_NGINX if left_s is not None else ()
        vary = _VARY if asked.negotiated else ()
        return ((b"cache-control", b"public, max-age=%d" % max_age_s), *nginx, *SAFE, *vary)

    def _good_for_s(self, asked: _Asked) -> float | None:
        """Return for how many seconds this stays the answer, or None for ever: another server's image may change."""
        left_s = self._left_s(asked)
        if not asked.request.path.startswith(REMOTE):
            return left_s
        return min(self._library.remote_ttl_s, math.inf if left_s is None else left_s)

    def _left_s(self, asked: _Asked) -> float | None:
        """Return how many seconds the link is good for at least, or None when it does not expire.

        At least: what is remembered here is given again with the same headers, so much later at most.
        """
        expires_at = asked.term.expires_at
        return None if expires_at is None else max(0.0, expires_at - self._clock() - self._remembered_s)

    def _original(self, asked: _Asked) -> Answer | None:
        """Answer with the original itself when that is what is asked for; else None."""
        if not _is_original(asked):
            return None
        image, originals = asked.image, self._library.originals
        found = by_name(image.format)
        name = filename(image, "", found.extension)
        if self._handover is not None:
            originals.check_there(image)
            handed = self._handed_over(asked, originals.key(image), found.mime, name)
            if handed is not None:
                return handed
        body: Body
        if image.size <= READ_WHOLE_BYTES:
            body = originals.read(image)
        else:
            originals.check_there(image)  # while an error can still be told
            path = originals.path(image)
            if path is not None:
                body = FileBody(path=path, start=0, length=image.size)
            else:
                body = StreamBody(read=partial(originals.pieces, image), start=0, length=image.size)
        return self._finished(asked, self._representation(asked, body, found.mime, name), b"store;desc=original")

    def _variant(self, asked: _Asked) -> Answer | Making:
        def finish(variant: Variant) -> Answer:
            extension = by_name(variant.transform.format or "").extension
            name = filename(asked.image, variant.transform.stem, extension)
            whole = self._representation(asked, variant.body, variant.media_type, name)
            mine = asked if variant.turn.is_ours() else replace(asked, shared_ticket=None)  # not to be shared
            return self._finished(mine, whole, _timing(variant))

        if (handed := self._handed_over_variant(asked)) is not None:
            return handed
        stored = self._stored(asked.image, asked.wanted)
        if isinstance(stored, FileBody):
            return self._large_variant(asked, stored)
        if stored is not None:
            return finish(stored)
        flight = self._library.make(asked.image, asked.wanted.transform)
        return Making(future=flight.delivered, finish=finish, leave=flight.leave)

    def _stored(self, image: Image, wanted: Wanted) -> Variant | FileBody | None:
        """Return a stored variant, or its file when it is too large to be read whole."""
        try:
            file = self._library.stored_file(image, wanted.transform)
        except BlobMissing:
            return None
        if file is not None and file[1] > READ_WHOLE_BYTES:
            return FileBody(path=file[0], start=0, length=file[1])
        return self._library.stored(image, wanted.transform)

    def _large_variant(self, asked: _Asked, body: FileBody) -> Answer:
        found = by_name(asked.wanted.transform.format or "")
        name = filename(asked.image, asked.wanted.transform.stem, found.extension)
        return self._finished(asked, self._representation(asked, body, found.mime, name), b"store;desc=hit")

    def _handed_over_variant(self, asked: _Asked) -> Answer | None:
        """Hand a variant over if it is stored; None also when there is nobody to hand it to."""
        if self._handover is None:
            return None
        key = self._library.stored_key(asked.image, asked.wanted.transform)
        if key is None:
            return None
        found = by_name(asked.wanted.transform.format or "")
        name = filename(asked.image, asked.wanted.transform.stem, found.extension)
        return self._handed_over(asked, key, found.mime, name)

    def _handed_over(self, asked: _Asked, key: str, media_type: str, name: str) -> Answer | None:
        """Have somebody else send what is stored; None when this request is for us."""
        handover, whole = self._handover, self._representation(asked, b"", media_type, name)
        assert handover is not None

        def again(request: Request) -> Answer | None:
            answer = handover.answer(key, whole, request, left_s=self._good_for_s(asked))
            return answer and _timed(answer, _HIT[0][1])

        answer = handover.answer(key, whole, asked.request, left_s=self._good_for_s(asked))
        if answer is not None and self._remembers_handovers:
            plain = _timed(answer, _HIT[0][1]) if asked.request.is_plain else again(_plain(asked))
            if plain is not None:
                self._remember(asked, plain, again, 0)
        return answer and _timed(answer, b"store;desc=handover")

    def _representation(self, asked: _Asked, body: Body, media_type: str, name: str) -> Representation:
        own = (
            (b"content-type", media_type.encode()),
            (b"content-disposition", content_disposition(name)),
        )
        return Representation(
            ident=asked.image.ident, body=body, etag=etag(asked.wanted), modified=asked.image.created,
            headers=(*own, *self._common(asked)),
        )  # fmt: skip

    def _finished(self, asked: _Asked, whole: Representation, timing: bytes) -> Answer:
        """Keep what is small in memory, and answer with how the work went."""
        if isinstance(whole.body, bytes) and self._handover is None:
            hit = Representation(
                ident=whole.ident, body=whole.body, etag=whole.etag, modified=whole.modified,
                headers=(*whole.headers, *_HIT),
            )  # fmt: skip
            self._remember(asked, respond(hit, _plain(asked)), partial(respond, hit), len(whole.body))
            if self._sharing is not None and asked.shared_ticket is not None:
                self._sharing.keep(asked.shared_ticket, _without_link(asked), whole, negotiated=asked.negotiated)
        return _timed(respond(whole, asked.request), timing)

    def _remember(self, asked: _Asked, plain: Answer, again: Callable[[Request], Answer | None], size: int) -> None:
        hit = Hit(term=asked.term, plain=plain, again=again)
        self._memory.keep(asked.request, hit, size, negotiated=asked.negotiated)


def _plain(asked: _Asked) -> Request:
    """Return the request without conditions and ranges, for the answer that most others get."""
    return Request(method="GET", path=asked.request.path)


def _timed(answer: Answer, timing: bytes) -> Answer:
    return replace(answer, headers=(*answer.headers, (b"server-timing", timing)))


def _is_original(asked: _Asked) -> bool:
    """Whether the original itself is what is asked for."""
    wanted = asked.wanted
    return wanted.transform.is_identity and (wanted.source_format or wanted.transform.format) == asked.image.format


def _without_link(asked: _Asked) -> Request:
    """Return the request as it would be without a signature: what is answered does not depend on it."""
    return replace(asked.request, query=asked.options)


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


def _timing(variant: Variant) -> bytes:
    """Write a Server-Timing value. Source: W3C Server Timing, section 2."""
    if not variant.timings_ms:
        return b"store;desc=hit"
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in variant.timings_ms).encode()
