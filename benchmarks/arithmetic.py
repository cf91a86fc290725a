"""Does the arithmetic of docs/scaling.md again, and writes it; measured figures come from the benchmarks' tables."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PAGE, OTHERS = DOCS / "scaling.md", (DOCS / "performance.md",)

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def renewed(page: str, others: str = "") -> str:
    """Return the page with what its measured and calculated rows must say.

    `others` are the pages that have the rest of the benchmarks' tables.

    Raises:
        LookupError: a table, row or column is not there, or a name in a formula.
    """
    names: dict[str, float] = {}

    def measured(cells: list[str]) -> None:
        cells[1] = _cell(page + others, *(part.strip() for part in cells[2].split(";")))
        names[cells[0].strip("`")] = float(cells[1].replace(",", ""))

    def assumed(cells: list[str]) -> None:
        names[cells[0].strip("`")] = float(cells[1].replace(",", ""))

    def calculated(cells: list[str]) -> None:
        exact = names[cells[0].strip("`")] = evaluate(cells[1].strip("`"), names)
        cells[2] = shown(exact)

    for title, change in (("Measured", measured), ("Assumed", assumed), ("Calculated", calculated)):
        page = _changed(page, title, change)
    return page


def _changed(page: str, title: str, change: Callable[[list[str]], None]) -> str:
    """Return the page with the rows of the table below a title changed."""
    head = f"\n## {title}\n"
    if head not in page:
        raise LookupError(f"there is no section {title}")
    before, _, rest = page.partition(head)
    section, following, after = rest.partition("\n## ")
    lines = section.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("| `"):
            cells = _split(line)
            change(cells)
            lines[number] = f"| {' | '.join(cells)} |"
    return before + head + "\n".join(lines) + ("\n" if section.endswith("\n") else "") + following + after


def _cell(text: str, title: str, row: str, column: str) -> str:
    """Return a cell of a table that a benchmark wrote."""
    table = text.partition(f"### {title}\n\n")[2].partition("\n\n")[0].splitlines()
    found = [cells for cells in map(_split, table) if cells[0] == row]
    if not found or column not in _split(table[0]):
        raise LookupError(f"there is no table {title!r} with a row {row!r} and a column {column!r}")
    return found[0][_split(table[0]).index(column)]


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def evaluate(formula: str, names: dict[str, float]) -> float:
    """Return what a formula of numbers, names and the four operations gives."""

    def of(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as constant):
                return float(constant)
            case ast.Name(id=name):
                return names[name]
            case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
                return float(_OPERATIONS[type(operation)](of(left), of(right)))
        raise LookupError(f"{formula}: only numbers, names, + - * / and brackets")

    return of(ast.parse(formula, mode="eval").body)


def shown(exact: float) -> str:
    """Return a value as the page shows it: what is large without a fraction, what is small with two digits."""
    if exact >= 100:
        return f"{exact:,.0f}"
    return f"{exact:.1f}" if exact >= 1 else f"{exact:.2g}"


def main() -> int:
    """Write the page anew."""
    others = "".join(page.read_text(encoding="utf-8") for page in OTHERS)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), others), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
