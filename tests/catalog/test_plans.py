"""How the databases answer a search: along the index of its order, without sorting, and deep in it as at its start."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from lazypix.catalog import Catalog, Search
from lazypix.catalog.search import filename_key
from lazypix.catalog.values import moment

ROWS = 20_000
BEGAN_US = 1_700_000_000_000_000
QUARTERS = [moment(BEGAN_US + ROWS * 1000 * n // 4) for n in range(5)]
_INSERT = (
    "INSERT INTO images (ident, state, since_us, created_us, sha256, size, format, width, height, frames, orientation,"
    " alpha, filename, metadata, strikes, filename_key, checked_us, damaged) VALUES (:ident, :state, :us, :us, 'x', :size,"
    " 'jpg', 1, 1, 1, 1, false, :name, '{}', 0, :key, :us, false)"
)

TIME, NAME, SIZE, TERMS = "images_by_state_and_time", "images_by_filename", "images_by_size", "terms"
BETWEEN: dict[str, Any] = {"created_from": QUARTERS[1], "created_before": QUARTERS[3]}
MIDDLING: dict[str, Any] = {"smallest": 300_000, "largest": 700_000}
HUGE: dict[str, Any] = {"smallest": 8_000_000}
COMMON: dict[str, object] = {"public": True}
SECOND: dict[str, object] = {"album": "a7"}
RARE: dict[str, object] = {"rare": "yes"}
SEARCHES: dict[str, tuple[Search, str]] = {
    "newest": (Search(), TIME),
    "oldest": (Search(order="oldest"), TIME),
    "largest": (Search(order="largest"), SIZE),
    "smallest": (Search(order="smallest"), SIZE),
    "filename": (Search(order="filename"), NAME),
    "prefix": (Search(filename="photo"), NAME),
    "newest, created": (Search(**BETWEEN), TIME),
    "oldest, created": (Search(**BETWEEN, order="oldest"), TIME),
    "largest, sizes": (Search(**MIDDLING, order="largest"), SIZE),
    "smallest, sizes": (Search(**MIDDLING, order="smallest"), SIZE),
    "newest, sizes": (Search(**MIDDLING), TIME),
    "newest, rare sizes": (Search(**HUGE), TIME),
    "oldest, created, rare sizes": (Search(**HUGE, **BETWEEN, order="oldest"), TIME),
    "largest, created": (Search(**BETWEEN, order="largest"), SIZE),
    "prefix, created, sizes": (Search(filename="photo", **BETWEEN, **MIDDLING), NAME),
    "prefix, common": (Search(filename="photo", metadata=COMMON), NAME),
    "prefix, rare": (Search(filename="photo", metadata=RARE), NAME),
    "common": (Search(metadata=COMMON), TERMS),
    "common, oldest": (Search(metadata=COMMON, order="oldest"), TERMS),
    "rare": (Search(metadata=RARE), TERMS),
    "unknown": (Search(metadata={"no": "yes"}), TERMS),
    "common, second": (Search(metadata=COMMON | SECOND), TERMS),
    "second, common, oldest": (Search(metadata=SECOND | COMMON, order="oldest"), TERMS),
    "common, rare": (Search(metadata=COMMON | RARE), TERMS),
    "common, created": (Search(metadata=COMMON, **BETWEEN), TERMS),
    "common, sizes": (Search(metadata=COMMON, **MIDDLING), TERMS),
    "common, rare sizes": (Search(metadata=COMMON, **HUGE), TERMS),
    "common, second, created, sizes": (Search(metadata=COMMON | SECOND, **BETWEEN, **MIDDLING), TERMS),
}
BOUNDED = [
    "newest", "oldest", "largest", "smallest", "filename", "prefix", "newest, created", "oldest, created", "largest, sizes",
    "smallest, sizes", "common", "common, oldest", "common, created",
]  # fmt: skip


def _fill(connection: Connection) -> None:
    pick = random.Random(7)
    images, terms = [], []
    for number in range(ROWS):
        us, ident = BEGAN_US + number * 1000, f"{number:08x}{pick.getrandbits(32):08x}"
        name = f"{pick.choice(['IMG', 'dsc', 'photo', 'Ünder'])}-{pick.randrange(ROWS):05}.jpg"
        state = "ready" if number % 20 else pick.choice(["pending", "trashed", "gone"])
        size = int(pick.lognormvariate(13, 1))
        images.append(
            {"ident": ident, "state": state, "us": us, "size": size, "name": name, "key": filename_key(name)}
        )
        of_it = [f"album=a{number % 50}", f"public={'true' if number % 3 else 'false'}"]
        terms += [{"term": term, "us": us, "ident": ident} for term in of_it + ["rare=yes"] * (number % 400 == 7)]
    connection.execute(text(_INSERT), images)
    connection.execute(text("INSERT INTO terms (term, created_us, ident) VALUES (:term, :us, :ident)"), terms)


@pytest.fixture(scope="module", params=["sqlite", "sqlite analyzed", "postgresql"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A catalog of many images. Nobody analyzes a SQLite database unless told to; PostgreSQL does it by itself.

    Here that is done once, of all rows: by itself it looks at a sample, at a moment of its own, and what it then makes
    of a term that 50 images have is a matter of luck.
    """
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'catalog.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("new_database")()
    with closing(Catalog.open(url)) as catalog:
        with catalog._database.writing() as connection:
            _fill(connection)
            if request.param == "postgresql":
                for table in ("images", "terms"):
                    connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
        if request.param != "sqlite":
            with catalog._database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                if request.param == "postgresql":
                    connection.execute(text("SET default_statistics_target = 1000"))  # 300 rows each: all there are
                connection.execute(text("VACUUM ANALYZE" if request.param == "postgresql" else "ANALYZE"))
            catalog._database._engine.dispose()  # SQLite reads what was found when it opens a database
        yield catalog


def _explained(catalog: Catalog, act: Any, how: str = "") -> list[str]:
    """Return the lines of the plan of the last statement that `act` carries out."""
    engine = catalog._database._engine
    seen: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    act()
    event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if catalog._database.is_sqlite else f"EXPLAIN {how}"
    with engine.connect() as connection:
        statement, parameters = seen[-1]
        return [str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters)]


def _plan(catalog: Catalog, search: Search, behind: str | None, how: str = "") -> list[str]:
    return _explained(catalog, lambda: catalog.search(search, limit=20, behind=behind), how)


def _deep(catalog: Catalog, search: Search) -> str | None:
    """Return where the hundredth page of 20 begins, or the middle one if there are fewer."""
    found = catalog.search(search, limit=99 * 20)
    return found[-1 if len(found) == 99 * 20 else len(found) // 2].ident if found else None


def _used(plan: list[str]) -> list[str]:
    """Return the indexes of a plan, without what follows from the values that are searched."""
    found = re.findall(r"(?:INDEX |PRIMARY KEY|using )\w*", "\n".join(plan))
    names = (name.replace("INDEX ", "").replace("using ", "").replace("PRIMARY KEY", TERMS) for name in found)
    return [TERMS if name == "terms_pkey" else name for name in names]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_follows_the_index_of_its_order(large: Catalog, name: str) -> None:
    search, index = SEARCHES[name]
    first, deep = (_plan(large, search, behind) for behind in (None, _deep(large, search)))
    for plan in (first, deep):
        said = "\n".join(plan)
        assert not re.search(r"TEMP B-TREE|Sort|SCAN|Seq Scan|Hash|Bitmap", said), said
        assert _used(plan)[0] == index, said
        assert not ({TIME, NAME, SIZE} - {index}) & set(_used(plan)), said
    assert _used(first) == _used(deep)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "unknown"])
def test_a_page_begins_where_the_one_before_ended(large: Catalog, name: str) -> None:
    """At one end of the index there is one bound only: of two, either database might begin at the wrong one."""
    search, _ = SEARCHES[name]
    said = "\n".join(_plan(large, search, _deep(large, search)))
    ascending = search.sorting in ("oldest", "smallest", "filename")
    sign = ">" if ascending else "<"
    row = (
        rf",ident\){sign}\("
        if large._database.is_sqlite
        else rf"ROW\([^)]*\)[^)]*\) {sign} ROW|ROW\(.*?\) {sign} ROW"
    )
    assert re.search(row, said), said
    condition = said.split("\n")[0] if large._database.is_sqlite else said.partition("Index Cond")[2].split("\n")[0]
    scalar = (
        rf"\b(?:created_us|size|filename_key){sign}" if large._database.is_sqlite else rf"(?:us|size|key) {sign}=? "
    )
    assert not re.search(scalar, condition), said


def _work(catalog: Catalog, search: Search, behind: str | None) -> int:
    """Return how much a page made the database do: thousands of its virtual machine's steps, or pages looked at."""
    if not catalog._database.is_sqlite:
        plan = _plan(catalog, search, behind, "(ANALYZE, BUFFERS, TIMING OFF) ")
        return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", plan[1]))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    engine = catalog._database._engine

    def watch(connection: Connection, *_: object) -> None:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.set_progress_handler(count, 10)

    event.listen(engine, "before_cursor_execute", watch)
    catalog.search(search, limit=20, behind=behind)
    event.remove(engine, "before_cursor_execute", watch)
    return steps


@pytest.mark.parametrize("name", BOUNDED)
def test_the_hundredth_page_costs_what_the_first_did(large: Catalog, name: str) -> None:
    search, _ = SEARCHES[name]
    first, deep = _work(large, search, None), _work(large, search, _deep(large, search))
    assert 0 < first < 400
    assert deep < 2 * first + 20


def test_a_rare_pair_is_found_among_common_ones(large: Catalog) -> None:
    """Whichever is named first: following the common one would look at all of its images."""
    for metadata in (COMMON | RARE, RARE | COMMON, COMMON | SECOND | RARE):
        assert _work(large, Search(metadata=metadata), None) < 3000, metadata  # some 8000 for all of a common one


def test_a_walk_through_all_images_sorts_nothing(large: Catalog) -> None:
    said = "\n".join(_explained(large, lambda: list(islice(large.walk(), 2500))))
    assert not re.search(r"TEMP B-TREE|Sort|Seq Scan|Bitmap", said), said
