"""Tables: on the terminal with rich, in a file as markdown between two marker lines."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable


@dataclass(slots=True, kw_only=True)
class Table:
    """A table of results; the first column is text, the others numbers."""

    title: str
    note: str = ""
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Append a row."""
        assert len(cells) == len(self.columns)
        self.rows.append(list(cells))

    def print(self, console: Console) -> None:
        """Show the table on the terminal."""
        table = RichTable(title=self.title, caption=self.note, title_justify="left", caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """Return the table as markdown."""
        lines = [f"### {self.title}", ""]
        lines += [_row(self.columns), _row(["---"] + ["---:"] * (len(self.columns) - 1))]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])


def machine_line(peers: dict[str, str], command: str) -> str:
    """Say on what, with what, when and how the figures were made."""
    libvips = package_version("pyvips-binary")
    parts = [
        f"{os.cpu_count()} cores",
        f"Python {platform.python_version()}",
        f"libvips {libvips}",
        f"lazypix {package_version('lazypix')}",
        *(f"{name} {value}" for name, value in peers.items() if value),
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"`{command}`",
    ]
    return " · ".join(parts)


def write(file: Path, tables: Sequence[Table], machine: str, *, name: str = "bench") -> None:
    """Put the tables between the markers of this name in the file; without markers (or file) they are appended.

    Raises:
        ValueError: there is one marker without the other.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    if (begin in old) != (end in old):
        raise ValueError(f"{file} has only one of the markers {begin} and {end}")
    body = "\n".join([begin, machine, "", *(table.markdown() for table in tables), end])
    if begin in old:
        before, _, rest = old.partition(begin)
        new = before + body + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{body}\n".lstrip()
    file.write_text(new, encoding="utf-8")


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Return the median of the rounds' ratios, as text."""
    return f"{statistics.median(a / b for a, b in zip(numerators, denominators, strict=True)):.2f}"


def median(values: Sequence[float], digits: int = 0) -> str:
    """Return the median of the rounds, as text."""
    return f"{statistics.median(values):,.{digits}f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
