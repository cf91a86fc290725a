"""Benchmark of changes: how long after one process tells of a change another part hears of it, on each feed."""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from tests import programs

from benchmarks import corpus
from benchmarks.report import Table, machine_line, write
from lazypix.catalog import Catalog
from lazypix.changes import Changes
from lazypix.changes.opening import changes_of, open_changes

_LONGEST_PAUSE_S = 0.1  # between two changes, at random: one that is polled for comes at any moment
_PATIENCE_S = 30.0


def main() -> int:
    """Measure each feed; print a table, and write it if asked to."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, _interrupt)  # so that the servers are stopped
    table = Table(
        title="A change is heard",
        columns=["feed", "changes", "told, ms", "heard, ms", "95 %", "worst"],
        note="Told: until the announcement is committed, or published; the median. Heard: from its beginning until "
        "the listening thread has it, with the telling; the median, what 95 of 100 keep within, and the worst. Both "
        "are threads of one process, and the server is on the same two cores.",
    )
    for name, feed in _FEEDS.items():
        # On the disk that the project is on: /tmp may be memory, where flushing a file costs nothing.
        with (
            tempfile.TemporaryDirectory(prefix="work-", dir=corpus.build().folder) as folder,
            feed(Path(folder)) as on,
        ):
            told, heard = _measure(on, arguments.changes)
        table.add(
            name, f"{arguments.changes}", _ms(statistics.median(told)), _ms(statistics.median(heard)),
            _ms(statistics.quantiles(heard, n=20)[-1]), _ms(max(heard)),
        )  # fmt: skip
    table.print(console)
    if arguments.write:
        write(arguments.write, [table], machine_line({}, _command()), name="changes")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.changes", description=__doc__)
    parser.add_argument("--changes", type=int, default=200, help="changes that are announced on each feed")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this markdown file")
    return parser.parse_args()


@contextmanager
def _sqlite(folder: Path) -> Iterator[Changes]:
    catalog = Catalog.sqlite(folder / "catalog.sqlite")
    yield changes_of(catalog)
    catalog.close()


@contextmanager
def _postgresql(_: Path) -> Iterator[Changes]:
    with programs.postgres() as server:
        catalog = Catalog.open(server.url)
        yield changes_of(catalog)
        catalog.close()


@contextmanager
def _redis(folder: Path) -> Iterator[Changes]:
    with programs.redis(folder) as server:
        yield open_changes(f"redis://{server.address}")


_FEEDS = {"PostgreSQL": _postgresql, "Redis": _redis, "SQLite": _sqlite}


def _measure(changes: Changes, count: int) -> tuple[list[float], list[float]]:
    """Return how many seconds each change took to be told, and to be heard."""
    told, heard = [], []
    arrived: dict[str, float] = {}
    arrival = threading.Event()

    def hear(ident: str) -> None:
        arrived[ident] = time.perf_counter()
        arrival.set()

    changes.subscribe(hear, _unexpected("everything was missed"))
    try:
        for number in range(-5, count):  # the first ones open connections
            time.sleep(random.uniform(0, _LONGEST_PAUSE_S))  # not a secret
            arrival.clear()
            begun = time.perf_counter()
            changes.announce([f"image{number}"])
            committed = time.perf_counter()
            if not arrival.wait(_PATIENCE_S):
                sys.exit("a change was not heard")
            if number >= 0:
                told.append(committed - begun)
                heard.append(arrived[f"image{number}"] - begun)
    finally:
        changes.close()
    return told, heard


def _unexpected(text: str) -> Callable[[], None]:
    return lambda: sys.exit(text)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _command() -> str:
    """Return how the benchmark was called, without this machine's paths."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join(["python -m benchmarks.changes", *words])


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all servers are stopped")
