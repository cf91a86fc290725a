"""Millions of images in a catalog's tables, made by the databases themselves: no originals, only their rows.

Idents and times as uploads make them, one after the other. Sizes from 20 KB to 4 MB, every doubling as frequent as
another. Names as cameras and phones give them: 60 % are `IMG_0000.JPG` to `IMG_9999.JPG`. Every image has an album: a
tenth of them are in `a0`, the others spread over as many albums as there are hundreds of images. Half are public.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg
from sqlalchemy import make_url

BEGAN_US = 1_700_000_000_000_000
STEP_US = 3_000_000
_BATCH = 500_000

Say = Callable[[str], None]
Execute = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    numbers: str
    """Gives the numbers `n` from {first} on, before {last}."""
    below: str
    """A whole number chosen at random, below {}."""
    tail: str
    sha256: str
    padded: str
    """The whole number {}, as text in so many places as the letter says."""
    json: str
    """The type of a column of JSON."""


_SQLITE = _Dialect(
    numbers="WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {last})",
    below="abs(random() % {})",
    tail="lower(hex(randomblob(10)))",
    sha256="lower(hex(randomblob(32)))",
    padded="printf('%0{}', {})",
    json="TEXT",
)
_POSTGRESQL = _Dialect(
    numbers="WITH numbers AS (SELECT * FROM generate_series({first}::bigint, {last} - 1) AS n)",
    below="floor(random() * {})::bigint",
    tail="substr(md5(n::text), 1, 20)",
    sha256="md5(n::text) || md5((-n)::text)",
    padded="CASE '{0}' WHEN '12x' THEN lpad(to_hex({1}), 12, '0') ELSE lpad(({1})::text, 4, '0') END",
    json="JSON",
)


def _images(dialect: _Dialect, first: int, last: int, albums: int) -> str:
    """Return the statement that writes the images from one number to another."""

    def below(number: int) -> str:
        return dialect.below.format(number)

    four = dialect.padded.format("4d", "number")
    # Step by step, so that what is chosen at random is the same wherever it is used.
    return f"""
INSERT INTO images (ident, state, since_us, created_us, sha256, size, format, width, height, frames, orientation,
    alpha, filename, metadata, strikes, filename_key, checked_us, damaged)
{dialect.numbers.format(first=first, last=last)},
chosen AS MATERIALIZED (
    SELECT n, {BEGAN_US} + n * {STEP_US} + {below(STEP_US)} AS us, {below(1000)} AS part, {below(13)} AS power,
        {below(100)} AS kind, {below(10_000)} AS number, {below(10)} AS crowd, 1 + {below(albums)} AS album,
        {below(2)} AS public, {dialect.tail} AS tail, {dialect.sha256} AS sha256
    FROM numbers),
named AS MATERIALIZED (
    SELECT *, {dialect.padded.format("12x", "us / 1000")} || tail AS ident,
        CASE WHEN kind < 60 THEN 'IMG_' || {four} || '.JPG' WHEN kind < 80 THEN 'DSC0' || {four} || '.jpg'
            WHEN kind < 90 THEN 'Screenshot ' || n || '.png' ELSE 'photo-' || n || '.jpg' END AS name,
        '{{"album": "a' || CASE WHEN crowd = 0 THEN 0 ELSE album END || '"'
            || CASE WHEN public = 1 THEN ', "public": true' ELSE '' END || '}}' AS pairs
    FROM chosen)
SELECT ident, 'ready', us, us, sha256, 20000 + part * (1 << CAST(power AS INTEGER)), 'jpg', 4000, 3000, 1, 1, false,
    name, CAST(pairs AS {dialect.json}), 0, lower(name), us, false
FROM named ORDER BY n"""


_TERMS = (
    "INSERT INTO terms (term, created_us, ident) SELECT 'album=' || (metadata ->> 'album'), created_us, ident"
    " FROM images ORDER BY 1, 2, 3",
    "INSERT INTO terms (term, created_us, ident) SELECT 'public=true', created_us, ident FROM images"
    " WHERE metadata ->> 'public' IS NOT NULL ORDER BY created_us, ident",
)


def fill(url: str, rows: int, say: Say) -> None:
    """Fill an empty catalog; its indexes are made anew behind the rows, which is quicker."""
    if make_url(url).get_backend_name() == "sqlite":
        with _sqlite(url) as connection:
            found = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE '%_by_%'"
            )
            _fill(connection.execute, dict(found.fetchall()), _SQLITE, rows, say)
            connection.execute("ANALYZE")
        return
    with psycopg.connect(url, autocommit=True) as server:
        for setting in ("synchronous_commit = off", "maintenance_work_mem = '512MB'", "work_mem = '256MB'"):
            server.execute(f"SET {setting}")  # type: ignore[call-overload, unused-ignore]
        indexes = server.execute("SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE '%\\_by\\_%'")
        _fill(lambda statement: server.execute(statement.encode()), dict(indexes.fetchall()), _POSTGRESQL, rows, say)
        server.execute("VACUUM ANALYZE")


def _fill(execute: Execute, indexes: dict[str, str], dialect: _Dialect, rows: int, say: Say) -> None:
    for name in indexes:
        execute(f"DROP INDEX {name}")
    for first in range(0, rows, _BATCH):
        execute(_images(dialect, first, min(first + _BATCH, rows), max(rows // 100, 1)))
    say(f"{rows:,} images written")
    for statement in _TERMS:
        execute(statement)
    say("their terms written")
    for made in indexes.values():
        execute(made)
    say("their indexes made")


@contextmanager
def _sqlite(url: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(str(make_url(url).database), isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "cache_size = -1000000", "temp_store = FILE"):
            connection.execute(f"PRAGMA {pragma}")
        yield connection
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def size_mb(url: str) -> float:
    """Return the megabytes of a database, indexes included."""
    if make_url(url).get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(make_url(url).database))) as connection:
            pages, size = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
            return float(pages * size / 1e6)
    with psycopg.connect(url) as server:
        (found,) = server.execute("SELECT pg_database_size(current_database())").fetchall()
        return float(found[0] / 1e6)
