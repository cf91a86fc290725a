"""Commands that move a library: to another place, into a file, out of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lazypix.cli.common import FAILED, USAGE, JsonOption, err, errors_told, fail, group, print_json
from lazypix.engine.idle import IdleEngine
from lazypix.library import Library
from lazypix.settings import Settings, load_library, open_library
from lazypix.upkeep.copying import copy_library
from lazypix.upkeep.report import Report

commands = group()

VariantsOption = Annotated[bool, typer.Option("--variants/--no-variants", help="The stored variants too.")]


@commands.command(epilog="Example: `lazypix copy data /mnt/new` or `lazypix copy data s3.toml --no-variants`")
def copy(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="Folder of a library, or its TOML settings file.")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="The same for the copy; a new folder is made.")],
    variants: VariantsOption = True,
    threads: Annotated[int, typer.Option(min=1, max=256, help="How many images to copy at once.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Copy a library to another folder, store or catalog; again, to bring the copy up to date."""
    with errors_told():
        origin, copied = _settings(source, must_exist=True), _settings(target)
        if source.resolve() == target.resolve() or origin.data.resolve() == copied.data.resolve():
            fail(USAGE, "FROM and TO are the same library")
        with _opened(origin) as one, _opened(copied) as other, _shown("copying") as progress:
            report = copy_library(one, other, progress=progress, threads=threads, variants=variants)
    _tell(report, "copied", as_json=as_json)


def _settings(path: Path, *, must_exist: bool = False) -> Settings:
    if path.suffix == ".toml" and not path.is_file():
        fail(USAGE, f"There is no settings file {path}")
    if must_exist and not path.is_file() and not (path / "catalog.sqlite").is_file():
        fail(USAGE, f"There is no library in {path}")
    return load_library(path)


def _opened(settings: Settings) -> Library:
    # Not tidied: a folder does not tell for how long what was deleted from it is to be kept.
    return open_library(settings, IdleEngine(), tidies=False)


class _Bar:
    """Shows how far a report is."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._images = progress.add_task(name, total=None, bytes=0)

    def __call__(self, report: Report) -> None:
        self._progress.update(self._images, total=report.total, completed=report.done, bytes=report.bytes)


@contextmanager
def _shown(name: str) -> Iterator[_Bar]:
    """Show a progress bar, on a terminal only."""
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bytes]:,} bytes"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        yield _Bar(progress, name)


def _tell(report: Report, verb: str, *, as_json: bool) -> None:
    """Print what came of it; with failures, end with their exit code."""
    if as_json:
        print_json(report.facts())
    else:
        print(
            f"{verb} {report.copied} images and {report.variants} variants ({report.bytes} bytes); "
            f"{report.skipped} were there already, {report.deleted} are deleted, {report.failed} failed"
        )
    for ident, reason in report.failures:
        err.print(f"[red]{escape(ident)}[/]: {escape(reason)}", highlight=False, soft_wrap=True)
    if report.failed:
        fail(FAILED, f"{report.failed} images were not {verb}")
