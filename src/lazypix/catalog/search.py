"""Searching images: what can be asked for, and the queries that answer it from an index, page by page.

Every order has an index that ends in the ident, and a page begins behind the last image of the one before (keyset
paging): the ten-thousandth page costs what the first one did. What is asked for beside the order is looked at image
by image on the way along that index, whatever the planner believes about it: it would rather sort all of a million
images for each page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, select, tuple_

from lazypix.catalog.tables import images, terms
from lazypix.catalog.values import microseconds
from lazypix.errors import BadRequest, UnknownImage

Order = Literal["newest", "oldest", "filename", "largest", "smallest"]
ORDERS: tuple[str, ...] = get_args(Order)
_SEARCHABLE = (str, int, float, bool)

_LONGEST_KEY = 200
_LARGEST = 2**63 - 1  # what a column holds; a size beyond it is not more than that
_RARE = 1000  # images of a pair that are looked at one by one sooner than those of a commoner pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What images to list, and in which order.

    `filename` is how the name begins, in any case and at most 200 characters of it, and comes in the order of names
    (images without a name have no place in it); `metadata` are pairs that the caller's metadata must hold (texts,
    numbers or booleans at their top level, compared as text), newest first. Sizes are bytes of the original, both
    ends included.

    A page costs what its images cost where the order's own values bound it (creation for newest and oldest, sizes for
    largest and smallest, names) and by one pair of metadata. What else is asked for is looked at image by image: if
    hardly any image fulfils it, a page looks at many.
    """

    filename: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    smallest: int | None = None
    largest: int | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    order: Order | None = None
    """None: by filename if one is given, else newest first."""

    @classmethod
    def of(cls, options: Iterable[tuple[str, str]]) -> Search:
        """Read a search from texts: pairs of name and value, where `meta.<name>` is a pair of the metadata.

        Raises:
            BadRequest: an option is unknown, given twice, or malformed.
        """
        values: dict[str, Any] = {}
        metadata: dict[str, str] = {}
        for name, text in options:
            kept: dict[str, Any] = values
            if name.startswith("meta."):
                kept, name = metadata, name.removeprefix("meta.")
            elif name not in _READERS:
                raise BadRequest(f"Unknown option {name[:40]!r}; accepted: {', '.join(_READERS)}, meta.<name>")
            if name in kept:
                raise BadRequest(f"Option {name[:40]!r} is given twice")
            kept[name] = text if kept is metadata else _read(name, text)
        return cls(**values, metadata=metadata)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the search as texts, of which `of` makes the same search again."""
        given = [(name, getattr(self, name)) for name in _READERS]
        plain = [(name, value) for name, value in given if value is not None]
        texts = [(name, value.isoformat() if isinstance(value, datetime) else str(value)) for name, value in plain]
        return texts + [
            (f"meta.{name}", str(value).lower() if isinstance(value, bool) else str(value))
            for name, value in self.metadata.items()
        ]

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
        if self.metadata and self.filename is None and self.order not in ("newest", "oldest"):
            raise BadRequest(f"order={self.order} does not go with metadata; accepted: newest, oldest")
        return self.order

    @property
    def terms(self) -> list[str]:
        """The pairs of metadata as the table of terms has them.

        Raises:
            BadRequest: a value is none of those that are searched.
        """
        for name, value in self.metadata.items():
            if not isinstance(value, _SEARCHABLE):
                kind = "null" if value is None else type(value).__name__
                raise BadRequest(f"metadata {name[:32]!r}: {kind} is not searched; accepted: text, number, boolean")
        return [term_of(name, value) for name, value in self.metadata.items()]


def _read(name: str, text: str) -> Any:
    try:
        return _READERS[name](text)
    except ValueError:
        kind = "a number of bytes" if _READERS[name] is int else "a date such as 2026-11-21 or 2026-11-21T10:00:00Z"
        raise BadRequest(f"{name}={text[:40]!r} is not accepted; accepted: {kind}") from None


def _date(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_READERS: dict[str, Callable[[str], Any]] = {
    "filename": str,
    "smallest": int,
    "largest": int,
    "created_from": _date,
    "created_before": _date,
    "order": str,
}


def filename_key(filename: str | None) -> str:
    """Return a filename as it is searched: its beginning, without case, however its accents are composed."""
    decomposed = unicodedata.normalize("NFD", filename or "")
    return _storable(unicodedata.normalize("NFC", decomposed.casefold()).replace("\0", ""))[:_LONGEST_KEY]


def terms_of(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the searchable pairs of metadata: those at the top level that are no lists or objects."""
    for name, value in metadata.items():
        if isinstance(value, _SEARCHABLE):
            yield term_of(name, value)


def term_of(name: str, value: object) -> str:
    """Return how a pair is written in the table of terms: another one for every other pair, however long."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    term = _storable(f"{name.replace('%', '%25').replace('=', '%3D')}={text}".replace("\0", "\ufffd"))
    if len(term) <= _LONGEST_KEY:
        return term
    digest = sha256(term.encode()).hexdigest()
    return term[: _LONGEST_KEY - len(digest)] + digest


def _storable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", errors="replace").decode()


def rarest_first(connection: Connection, pairs: Sequence[str]) -> Sequence[str]:
    """Return the terms of a search in the order of how many images have them, as far as that is quickly counted."""
    if len(pairs) < 2:
        return pairs
    some = [select(terms.c.ident).where(terms.c.term == term).limit(_RARE).subquery() for term in pairs]
    counts = connection.execute(select(*(select(func.count()).select_from(s).scalar_subquery() for s in some))).one()
    return [term for _, term in sorted(zip(counts, pairs, strict=True), key=lambda found: found[0])]


def page(search: Search, mark: Row[Any] | None, limit: int, pairs: Sequence[str]) -> Select[Any]:
    """Return the query for the page behind `mark`, the images' row at which the page before ended.

    `pairs` are the terms of the search; of the first one the index is followed.

    Raises:
        UnknownImage: `mark` has no place in this order.
    """
    order = search.sorting
    table = terms if pairs and order != "filename" else images
    column: ColumnElement[Any] = {
        "newest": table.c.created_us,
        "oldest": table.c.created_us,
        "filename": images.c.filename_key,
        "largest": images.c.size,
        "smallest": images.c.size,
    }[order]
    query = select(images).where(images.c.state == "ready").limit(limit)
    if table is terms:
        query = query.join(terms, terms.c.ident == images.c.ident).where(terms.c.term == pairs[0])
        pairs = pairs[1:]
    query = query.where(*_other_bounds(search), *(_has(table, term) for term in pairs))
    key = tuple_(column, table.c.ident)
    if order in ("newest", "largest"):
        query = query.where(*_stretch(search, mark, column, key, descending=True))
        return query.order_by(column.desc(), table.c.ident.desc())
    return query.where(*_stretch(search, mark, column, key, descending=False)).order_by(column, table.c.ident)


def _stretch(
    search: Search, mark: Row[Any] | None, column: ColumnElement[Any], key: Any, *, descending: bool
) -> Iterator[ColumnElement[bool]]:
    """Yield where in its index the page lies: one bound at each end.

    Of two bounds at one end, SQLite and PostgreSQL begin at the first one, and the page's cost grows with its number.
    """
    low, high = _own_bounds(search)
    if mark is not None:
        value = mark._mapping[str(column.key)]
        if value == "":
            raise UnknownImage(f"The image {mark.ident} has no name (any more) to go on behind; begin anew")
        here = tuple_(value, mark.ident)
        if descending and (high is None or value < high):
            yield key < here
            high = None
        elif not descending and (low is None or value >= low):
            yield key > here
            low = None
    yield from _between(column, low, high)


def _own_bounds(search: Search) -> tuple[Any, Any]:
    """Return where the order's own values begin and where they have ended."""
    order = search.sorting
    if order == "filename":
        start = filename_key(search.filename)
        return start or "\x01", _behind_all(start)
    return _size_bounds(search) if order in ("largest", "smallest") else _time_bounds(search)


def _other_bounds(search: Search) -> Iterator[ColumnElement[bool]]:
    """Yield the bounds of other columns than the order's.

    Written so that no planner uses an index for them, and PostgreSQL takes them for true of nearly all images: one
    that expects less than a page would collect and sort all.
    """
    order = search.sorting
    bounds: list[ColumnElement[bool]] = []
    if order not in ("largest", "smallest"):
        bounds += _between(images.c.size, *_size_bounds(search))
    if order not in ("newest", "oldest"):
        bounds += _between(images.c.created_us, *_time_bounds(search))
    if bounds:
        yield case((and_(*bounds), 1)).is_not(None)


def _between(column: ColumnElement[Any], low: Any, high: Any) -> Iterator[ColumnElement[bool]]:
    if low is not None:
        yield column >= low
    if high is not None:
        yield column < high


def _size_bounds(search: Search) -> tuple[int | None, int | None]:
    low = None if search.smallest is None else min(max(search.smallest, 0), _LARGEST)
    high = None if search.largest is None else min(max(search.largest + 1, 0), _LARGEST)
    return low, high


def _time_bounds(search: Search) -> tuple[int | None, int | None]:
    low = None if search.created_from is None else microseconds(search.created_from)
    return low, None if search.created_before is None else microseconds(search.created_before)


def _behind_all(start: str) -> str | None:
    """Return the first text, as UTF-8 orders them, behind all that begin with `start`; None when there is none."""
    start = start.rstrip("\U0010ffff")
    if not start:
        return None
    last = ord(start[-1]) + 1
    return start[:-1] + chr(0xE000 if last == 0xD800 else last)  # there are no characters in between


def _has(table: Any, term: str) -> ColumnElement[bool]:
    """Look a pair up image by image; an `EXISTS` would be turned into a join, and that into a sort."""
    more = terms.alias()
    # All of the primary key, so that it is one look-up.
    found = select(more.c.ident).where(
        more.c.term == term, more.c.created_us == table.c.created_us, more.c.ident == table.c.ident
    )
    return found.correlate(table).scalar_subquery().is_not(None)
