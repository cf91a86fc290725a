"""What an image costs in PostgreSQL, and how many changes a second it tells: a minute, for docs/scaling.md."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from rich.console import Console
from tests.programs import postgres

from benchmarks import catalog_rows
from benchmarks.report import Table, machine_line, write
from lazypix.catalog import Catalog

_STEMS = ("400x300,fit=cover", "1200x")
_CONNECTIONS = 4
_COLUMNS = ["table", "rows", "bytes a row", "of it indexes"]
_NOTE = (
    "`pg_total_relation_size` after VACUUM, indexes and all, divided by the rows. Images have {pairs:.2f} pairs of "
    "metadata each (`terms`); two variants of each image are catalogued."
)


def main() -> int:
    """Measure, print the tables, and write them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="images")
    parser.add_argument("--seconds", type=float, default=3.0, help="for one rate")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this markdown file")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    with postgres() as server:
        tables = [_sizes(server.url, arguments.rows), _notifications(server.url, arguments.seconds)]
    for table in tables:
        table.print(console)
    if arguments.write:
        command = f"python -m benchmarks.rows --rows {arguments.rows}"
        write(arguments.write, tables, machine_line({}, command), name="rows")
    return 0


def _sizes(url: str, rows: int) -> Table:
    Catalog.open(url).close()  # which makes the tables
    catalog_rows.fill(url, rows, lambda _: None)
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("SET synchronous_commit = off")
        for stem in _STEMS:
            server.execute(
                "INSERT INTO variants (ident, stem, format, size, created_us, sha256, used_us)"
                " SELECT ident, %s, 'webp', 20000, created_us, sha256, created_us FROM images ORDER BY created_us",
                [stem],
            )
        server.execute("VACUUM ANALYZE")
        counts = {name: _one(server, f"SELECT count(*) FROM {name}") for name in ("images", "terms", "variants")}
        table = Table(
            title="Bytes of a row in PostgreSQL", columns=_COLUMNS, note=_NOTE.format(pairs=counts["terms"] / rows)
        )
        for name, count in counts.items():
            whole, indexes = (
                _one(server, f"SELECT {function}('{name}')")
                for function in ("pg_total_relation_size", "pg_indexes_size")
            )
            table.add(f"`{name}`", f"{count:,}", f"{whole / count:.0f}", f"{indexes / count:.0f}")
    return table


def _one(server: psycopg.Connection[tuple[int, ...]], statement: str) -> int:
    row = server.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def _notifications(url: str, seconds: float) -> Table:
    """Measure small transactions, without and with a NOTIFY in each."""
    table = Table(
        title="Changes that PostgreSQL tells",
        columns=["transaction", "a second"],
        note=f"{_CONNECTIONS} connections, each with one transaction after the other; one more listens. Every commit "
        "waits for the disk.",
    )
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute("LISTEN lazypix_rows")
        for name, last in (
            ("one row", ""),
            ("one row, and NOTIFY", "SELECT pg_notify('lazypix_rows', '0123456789')"),
        ):
            with ThreadPoolExecutor(_CONNECTIONS) as threads:
                made = sum(threads.map(lambda number: _commit(url, number, last, seconds), range(_CONNECTIONS)))  # noqa: B023
            table.add(name, f"{made / seconds:,.0f}")
    return table


def _commit(url: str, number: int, last: str, seconds: float) -> int:
    made = 0
    with psycopg.connect(url) as server:
        ident = _text(server, f"SELECT ident FROM images ORDER BY ident LIMIT 1 OFFSET {number}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            server.execute("UPDATE images SET strikes = strikes + 1 WHERE ident = %s", [ident])
            if last:
                server.execute(last.encode())
            server.commit()
            made += 1
    return made


def _text(server: psycopg.Connection[tuple[int, ...]], statement: str) -> str:
    return str(_one(server, statement))


if __name__ == "__main__":
    sys.exit(main())
