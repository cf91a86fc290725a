"""Finished answers in this process' memory, under the raw address, for as long as they may be given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lazypix.cache.memory import MemoryCache
from lazypix.generations import Generations, Ticket
from lazypix.http import Answer, Request, ranked_formats

_BOOKKEEPING_BYTES = 1500  # what an answer takes in memory besides its body: headers, key, entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """For how long an answer may be given again."""

    ticket: Ticket
    """Valid until the image is changed."""
    expires_at: int | None = None
    """When the link ends by which it was asked for, in seconds since 1970; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """The finished answer to a plain GET, and how others are answered, during its `term`."""

    term: Term
    plain: Answer
    again: Callable[[Request], Answer | None]
    """None for a request that has to be looked up after all."""


class AnswerMemory:
    """Remembers answers for `ttl_s` seconds at most. Never blocks; safe to use from many threads.

    The raw address is the key, with the signature in it: one that was verified when the answer was made need not be
    verified again, and an address that differs in anything is another one. Whether a link has expired since is asked
    each time, by `clock` (seconds since 1970).
    """

    def __init__(self, generations: Generations, *, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._generations = generations
        self._clock = clock
        # Under (path, query), or (path, query, formats the client takes) when the answer depends on `Accept`.
        self._hits: MemoryCache[Hit] = MemoryCache(max_bytes=max_bytes, ttl_s=ttl_s)
        # Clients that revalidate must not need the image itself in memory: term and answer under (path, query,
        # formats the client takes, conditions).
        self._unchanged: MemoryCache[tuple[Term, Answer]] = MemoryCache(max_bytes=max_bytes // 16, ttl_s=ttl_s)

    def find(self, request: Request) -> Answer | None:
        """Return the answer to a request, or None."""
        hit = self._hits.get((request.path, request.query))
        if hit is None:
            hit = self._hits.get((request.path, request.query, ranked_formats(request.accept)))
        if hit is None or not self._is_good(hit.term):
            known = self._unchanged.get(_condition(request))
            return known[1] if known is not None and self._is_good(known[0]) else None
        return hit.plain if request.is_plain else hit.again(request)

    def keep(self, request: Request, hit: Hit, size: int, *, negotiated: bool) -> None:
        """Remember an answer whose body has `size` bytes; `negotiated`: it depends on `Accept`."""
        target: tuple[object, ...] = (request.path, request.query)
        key = (*target, ranked_formats(request.accept)) if negotiated else target
        self._hits.set(key, hit, size + len(request.path) + len(request.query) + _BOOKKEEPING_BYTES)

    def keep_unchanged(self, request: Request, term: Term, answer: Answer) -> None:
        """Remember that a client has the image already."""
        condition = _condition(request)
        self._unchanged.set(condition, (term, answer), len(repr(condition)) + _BOOKKEEPING_BYTES)

    def _is_good(self, term: Term) -> bool:
        return self._generations.is_valid(term.ticket) and (
            term.expires_at is None or self._clock() < term.expires_at
        )


def _condition(request: Request) -> tuple[object, ...] | None:
    """Return what decides whether a client's copy is still good."""
    if request.if_none_match is None:
        return None
    conditions = (request.if_none_match, request.if_match, request.if_unmodified_since)
    return request.path, request.query, ranked_formats(request.accept), *conditions
