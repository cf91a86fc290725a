"""Searching images: what can be asked for, and the queries that answer it from an index, page by page.

Every order has an index that ends in the ident, and a page begins behind the last image of the one before (keyset
paging): the ten-thousandth page costs what the first one did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Row, Select, and_, exists, select, tuple_

from lazypix.catalog.tables import images, terms
from lazypix.catalog.values import microseconds
from lazypix.errors import BadRequest

Order = Literal["newest", "oldest", "filename", "largest", "smallest"]
ORDERS: tuple[str, ...] = get_args(Order)

_LONGEST_KEY = 200
_LAST = "\U0010ffff"  # sorts behind every character


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What images to list, and in which order.

    `filename` is how the name begins, in any case, and comes in the order of names; `metadata` are pairs that the
    caller's metadata must hold (texts, numbers or booleans at their top level), newest first. Sizes are bytes of the
    original, both ends included.
    """

    filename: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    smallest: int | None = None
    largest: int | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    order: Order | None = None
    """None: by filename if one is given, else newest first."""

    @property
    def sorting(self) -> Order:
        """The order in force.

        Raises:
            BadRequest: the order does not exist, or not for what is searched.
        """
        if self.order is None:
            return "newest" if self.filename is None else "filename"
        if self.order not in ORDERS:
            raise BadRequest(f"order={str(self.order)[:32]!r} is not accepted; accepted: {', '.join(ORDERS)}")
        if self.filename is not None and self.order != "filename":
            raise BadRequest(f"order={self.order} does not go with a filename; accepted: filename")
        if self.metadata and self.order not in ("newest", "oldest"):
            raise BadRequest(f"order={self.order} does not go with metadata; accepted: newest, oldest")
        return self.order


def filename_key(filename: str | None) -> str:
    """Return a filename as it is searched: its beginning, without case."""
    return (filename or "").casefold()[:_LONGEST_KEY]


def terms_of(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the searchable pairs of metadata: those at the top level that are no lists or objects."""
    for name, value in metadata.items():
        if isinstance(value, str | int | float | bool):
            yield term_of(name, value)


def term_of(name: str, value: object) -> str:
    """Return how a pair is written in the table of terms."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{name}={text}"[:_LONGEST_KEY].replace("\0", "")


def page(search: Search, mark: Row[Any] | None, limit: int) -> Select[Any]:
    """Return the query for the page behind `mark`, the images' row at which the page before ended."""
    order = search.sorting
    query = select(images).where(images.c.state == "ready", *_bounds(search)).limit(limit)
    if search.metadata:
        return _by_terms(query, search, mark, descending=order == "newest")
    column: ColumnElement[Any] = {
        "newest": images.c.created_us,
        "oldest": images.c.created_us,
        "filename": images.c.filename_key,
        "largest": images.c.size,
        "smallest": images.c.size,
    }[order]
    descending = order in ("newest", "largest")
    if mark is not None:
        here, there = tuple_(column, images.c.ident), tuple_(mark._mapping[str(column.key)], mark.ident)
        query = query.where(here < there if descending else here > there)
    if descending:
        return query.order_by(column.desc(), images.c.ident.desc())
    return query.order_by(column, images.c.ident)


def _bounds(search: Search) -> Iterator[ColumnElement[bool]]:
    if search.sorting == "filename":
        start = filename_key(search.filename)
        yield images.c.filename_key >= start if start else images.c.filename_key > ""
        if start:
            yield images.c.filename_key < start + _LAST
    if search.smallest is not None:
        yield images.c.size >= search.smallest
    if search.largest is not None:
        yield images.c.size <= search.largest
    if search.created_from is not None:
        yield images.c.created_us >= microseconds(search.created_from)
    if search.created_before is not None:
        yield images.c.created_us < microseconds(search.created_before)


def _by_terms(query: Select[Any], search: Search, mark: Row[Any] | None, *, descending: bool) -> Select[Any]:
    """Follow the first pair through its index; the others are looked up image by image."""
    first, *others = (term_of(name, value) for name, value in search.metadata.items())
    query = query.join(terms, and_(terms.c.ident == images.c.ident, terms.c.term == first))
    for number, other in enumerate(others):
        more = terms.alias(f"terms_{number}")
        # All of the primary key, so that it is one look-up.
        same = and_(more.c.term == other, more.c.created_us == images.c.created_us, more.c.ident == images.c.ident)
        query = query.where(exists().where(same))
    if search.created_from is not None:
        query = query.where(terms.c.created_us >= microseconds(search.created_from))
    if search.created_before is not None:
        query = query.where(terms.c.created_us < microseconds(search.created_before))
    if mark is not None:
        here, there = tuple_(terms.c.created_us, terms.c.ident), tuple_(mark.created_us, mark.ident)
        query = query.where(here < there if descending else here > there)
    if descending:
        return query.order_by(terms.c.created_us.desc(), terms.c.ident.desc())
    return query.order_by(terms.c.created_us, terms.c.ident)
