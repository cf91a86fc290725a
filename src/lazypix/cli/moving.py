"""Commands that move a library: to another place, into a file, out of a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lazypix.cli.common import FAILED, USAGE, DataOption, JsonOption, err, errors_told, fail, group, opened_library
from lazypix.composition import open_library
from lazypix.engine.idle import IdleEngine
from lazypix.library import Library
from lazypix.settings import Settings, load_library
from lazypix.upkeep.archive import export_library, import_library
from lazypix.upkeep.copying import copy_library
from lazypix.upkeep.report import Report

commands = group()

FileArgument = Annotated[Path, typer.Argument(help="The archive; `-`: standard output or input.")]
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


@commands.command(
    "export", epilog="Example: `lazypix export backup.tar`, `lazypix export - | ssh host lazypix import -`"
)
def export_images(
    file: FileArgument,
    idents: Annotated[list[str] | None, typer.Argument(help="Only these images; `-`: from standard input.")] = None,
    data: DataOption = None,
    variants: Annotated[bool, typer.Option("--variants/--no-variants", help="The stored variants too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all images, or those that are named, to a tar archive."""
    wanted = [line for line in map(str.strip, sys.stdin) if line] if idents == ["-"] else idents
    with (
        opened_library(data, IdleEngine(), tidies=False) as library,
        _written(file) as opened,
        _shown("exporting") as progress,
    ):
        report = export_library(library, opened, idents=wanted, variants=variants, progress=progress)
    _tell(report, "exported", as_json=as_json, to_stderr=str(file) == "-")


@commands.command("import", epilog="Example: `lazypix import backup.tar`")
def import_images(
    file: FileArgument,
    data: DataOption = None,
    trust: Annotated[bool, typer.Option("--trust", help="It is our own: decode nothing, take variants too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take in the images of an archive that are not there yet."""
    engine = IdleEngine() if trust else None
    with (
        opened_library(data, engine, new=True, tidies=False) as library,
        _read(file) as opened,
        _shown("importing") as progress,
    ):
        report = import_library(library, opened, trust=trust, progress=progress)
    _tell(report, "imported", as_json=as_json)


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Give a file to be written, which gets its name when it is complete; or standard output."""
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    if path.exists():
        fail(FAILED, f"{path} exists; it is not replaced")
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _read(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


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


def _tell(report: Report, verb: str, *, as_json: bool, to_stderr: bool = False) -> None:
    """Print what came of it; with failures, end with their exit code."""
    if as_json:
        text = json.dumps(report.facts(), indent=2)
    else:
        text = (
            f"{verb} {report.copied} images and {report.variants} variants ({report.bytes} bytes); "
            f"{report.skipped} were there already, {report.deleted} are deleted, {report.failed} failed"
        )
    print(text, file=sys.stderr if to_stderr else sys.stdout)
    for ident, reason in report.failures:
        err.print(f"[red]{escape(ident)}[/]: {escape(reason)}", highlight=False, soft_wrap=True)
    if report.failed:
        fail(FAILED, f"{report.failed} images were not {verb}")
