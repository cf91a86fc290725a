"""Benchmarks of the catalog: pages of millions of images, and uploads of many small ones; it takes an hour."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

os.environ["VIPS_CONCURRENCY"] = "1"  # read by libvips once; as lazypix' renderers set it

from rich.console import Console
from tests.programs import postgres

from benchmarks import catalog_pages, catalog_uploads, corpus
from benchmarks.catalog_rows import Say
from benchmarks.report import Table, machine_line, write

_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_PARTS = ("pages", "uploads")
_BYTES_A_ROW = 1_500  # of the largest database, with what it needs meanwhile


def main() -> int:
    """Run what is asked for; print tables, and write them if asked to."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, _interrupt)  # so that the servers are stopped
    pictures = corpus.build()
    begin = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - begin:5.0f} s  {line}", highlight=False)

    databases = list(_DATABASES) if arguments.database == "both" else [arguments.database]
    for part in arguments.only.split(",") if arguments.only else _PARTS:
        if part == "pages":
            tables = [_pages(database, arguments.rows, pictures, say) for database in databases]
        else:
            tables = [_uploads(databases, arguments.uploads, pictures, say)]
        for table in tables:
            table.print(console)
        if arguments.write:
            write(arguments.write, tables, machine_line({}, _command()), name=f"catalog-{part}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="images in the catalog whose pages are measured")
    parser.add_argument("--uploads", type=int, default=100_000, help="small images that are uploaded")
    parser.add_argument("--database", choices=[*_DATABASES, "both"], default="both")
    parser.add_argument("--only", choices=_PARTS, help="one part")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this markdown file")
    return parser.parse_args()


def _pages(database: str, rows: int, pictures: corpus.Corpus, say: Say) -> Table:
    with tempfile.TemporaryDirectory(prefix="work-", dir=pictures.folder) as folder:
        _check_space(Path(folder), rows * _BYTES_A_ROW)
        with _database(database, Path(folder)) as url:
            return catalog_pages.measure(_DATABASES[database], url, rows, say)


def _uploads(databases: list[str], count: int, pictures: corpus.Corpus, say: Say) -> Table:
    table, files = catalog_uploads.table(pictures)
    for database in databases:
        # On the disk that the project is on: /tmp may be memory, where flushing a file costs nothing.
        with (
            tempfile.TemporaryDirectory(prefix="work-", dir=pictures.folder) as folder,
            _database(database, Path(folder)) as url,
        ):
            catalog_uploads.measure(table, files, _DATABASES[database], url, Path(folder), count, say)
    return table


@contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    if name == "sqlite":
        yield f"sqlite:///{folder / 'catalog.sqlite'}"
    else:
        with postgres() as server:
            yield server.url


def _check_space(folder: Path, needed: int) -> None:
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    if free < needed:
        sys.exit(f"{needed / 1e9:.1f} GB of disk are needed, {free / 1e9:.1f} are free: ask for fewer --rows")


def _command() -> str:
    """Return how the benchmarks were called, without this machine's paths."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join(["python -m benchmarks.catalog", *words])


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all servers are stopped")
