"""Pages of a catalog of millions of images: the first ones and random ones deep in it, against the same by OFFSET."""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import Connection, event, func, select

from benchmarks.catalog_rows import BEGAN_US, STEP_US, Say, fill, size_mb
from benchmarks.corpus import SEED
from benchmarks.report import Table
from lazypix.catalog import Catalog, Image, Search
from lazypix.catalog.image_rows import image_of
from lazypix.catalog.search import page, rarest_first
from lazypix.catalog.values import moment

LIMIT = 100
PAGES = 200
_OFFSETS = 3
_FEW = 1000
_NOTE = (
    "Pages of 100 images through `Catalog.search`, milliseconds. Deep pages: {pages} behind images chosen at random, "
    "median and worst; first page: the median of {pages}. OFFSET: the page in the middle by "
    "the same query and a number of images to leave out, median of {offsets}. {rows:,} images and {terms:,} pairs of "
    "metadata, {size:,.0f} MB with all indexes; made in {seconds:,.0f} s. After ANALYZE; the system's memory keeps "
    "what was read of it."
)


def measure(name: str, url: str, rows: int, say: Say) -> Table:
    """Fill the database, then measure every search on it."""
    begin = time.perf_counter()
    Catalog.open(url).close()
    fill(url, rows, say)
    seconds = time.perf_counter() - begin
    columns = ["search", "images found", "first page", "deep page", "worst", "OFFSET", "OFFSET / deep", "along"]
    table = Table(title=f"Pages of {rows:,} images, {name}", columns=columns)
    with closing(Catalog.open(url)) as catalog:
        for title, search in _searches(rows).items():
            say(f"{name}: {title} …")
            _row(table, catalog, title, search, rows)
        terms = _count(catalog, "terms")
    table.note = _NOTE.format(
        pages=PAGES, offsets=_OFFSETS, rows=rows, terms=terms, size=size_mb(url), seconds=seconds
    )
    return table


def _searches(rows: int) -> dict[str, Search]:
    quarter, three = (moment(BEGAN_US + rows * STEP_US * n // 4) for n in (1, 3))
    return {
        "newest": Search(),
        "filename `IMG_`": Search(filename="IMG_"),
        "filename `img_1234`": Search(filename="img_1234"),
        "largest": Search(order="largest"),
        "created in the middle half": Search(created_from=quarter, created_before=three),
        "one common pair": Search(metadata={"public": True}),
        "one rare pair": Search(metadata={"album": "a7"}),
        "two common pairs": Search(metadata={"public": True, "album": "a0"}),
        "a common and a rare pair": Search(metadata={"public": True, "album": "a7"}),
        "one common pair, over 4 MB": Search(metadata={"public": True}, smallest=4_000_000),
    }


def _row(table: Table, catalog: Catalog, title: str, search: Search, rows: int) -> None:
    found = _found(catalog, search)
    if not found:
        return
    marks = _marks(catalog, search, rows)
    first = [_ms(lambda: catalog.search(search, limit=LIMIT)) for _ in range(PAGES)]
    deep = [_ms(lambda mark=mark: catalog.search(search, limit=LIMIT, behind=mark)) for mark in marks]  # type: ignore[misc]
    offset = [_ms(lambda: _by_offset(catalog, search, found // 2)) for _ in range(_OFFSETS)]
    middle, peer = statistics.median(deep), statistics.median(offset)
    table.add(
        title, f"{found:,}", f"{statistics.median(first):.1f}", f"{middle:.1f}", f"{max(deep):.1f}", f"{peer:,.1f}",
        f"{peer / middle:,.1f}", _along(catalog, search, marks[0]),
    )  # fmt: skip


def _found(catalog: Catalog, search: Search) -> int:
    everything = page(search, None, 2**40, search.terms).order_by(None).subquery()
    with catalog._database.writing() as connection:
        _take_your_time(catalog, connection)
        return int(connection.execute(select(func.count()).select_from(everything)).scalar_one())


def _count(catalog: Catalog, table: str) -> int:
    with catalog._database.reading() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def _marks(catalog: Catalog, search: Search, rows: int) -> list[str]:
    """Return random places in what a search finds: images of all that are found if they are few, else by moment."""
    pick = random.Random(SEED)
    if len(few := catalog.search(search, limit=_FEW)) < _FEW:
        return [image.ident for image in pick.choices(few, k=PAGES)]
    marks: list[str] = []
    for _ in range(50 * PAGES):
        chosen = moment(BEGAN_US + pick.randrange(STEP_US, rows * STEP_US))
        newest = catalog.search(Search(created_before=chosen), limit=1)
        marks += [image.ident for image in newest if _is_among(search, image)]
        if len(marks) == PAGES:
            return marks
    raise RuntimeError(f"found only {len(marks)} images to begin pages at")


def _is_among(search: Search, image: Image) -> bool:
    """Return whether an image lies between those found in their order; whether it is found itself does not matter."""
    return (
        (image.filename or "").lower().startswith((search.filename or "").lower())
        and (search.created_from is None or image.created >= search.created_from)
        and (search.created_before is None or image.created < search.created_before)
    )


def _by_offset(catalog: Catalog, search: Search, offset: int) -> list[Image]:
    """Get a page as most programs do: leave out what was on the pages before."""
    with catalog._database.writing() as connection:
        _take_your_time(catalog, connection)
        query = page(search, None, LIMIT, rarest_first(connection, search.terms)).offset(offset)
        return [image_of(row) for row in connection.execute(query)]


def _take_your_time(catalog: Catalog, connection: Connection) -> None:
    if not catalog._database.is_sqlite:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def _ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _along(catalog: Catalog, search: Search, mark: str) -> str:
    """Return the index that the plan of a deep page follows, and how the database sorts if it does."""
    engine = catalog._database._engine
    seen: list[tuple[str, object]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    catalog.search(search, limit=LIMIT, behind=mark)
    event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if catalog._database.is_sqlite else "EXPLAIN "
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(explain + seen[-1][0], seen[-1][1])  # type: ignore[arg-type]
        plan = "\n".join(str(row[-1]) for row in rows)
    index = re.search(r"(?:INDEX|using) (\w+)|PRIMARY KEY", plan)
    sorts = " and sorts" if re.search("TEMP B-TREE|Sort", plan) else ""
    return f"`{(index and index[1]) or 'terms_pkey'}`{sorts}" if index else "no index"
