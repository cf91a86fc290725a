"""What the commands share: options, output, and how errors end a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lazypix.composition import open_library
from lazypix.engine import Engine
from lazypix.errors import LazypixError, SettingsError
from lazypix.library import Library
from lazypix.settings import load

FAILED, USAGE = 1, 2
"""Exit codes: something could not be done; the command line or the settings are wrong."""

out = Console()
err = Console(stderr=True)

DataOption = Annotated[Path | None, typer.Option("--data", "-d", help="Folder of the library.", show_default="data")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def group(help: str | None = None) -> typer.Typer:
    """Return a new group of commands."""
    return typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, help=help)


@contextmanager
def opened_library(
    data: Path | None, engine: Engine | None = None, *, new: bool = False, tidies: bool = True
) -> Iterator[Library]:
    """Open the library of the settings, or of the folder `data`; end the command when something fails.

    One that is not there is made with `new` only: a mistyped folder shall not look like an empty library.
    """
    with errors_told():
        settings = load({"data": data})
        if not new and settings.catalog is None and not (settings.data / "catalog.sqlite").exists():
            fail(FAILED, f"There is no library in {settings.data}; `lazypix add` or `lazypix serve` makes one")
        with open_library(settings, engine, tidies=tidies) as library:
            yield library


@contextmanager
def errors_told() -> Iterator[None]:
    """End the command with a message when something fails that may fail."""
    try:
        yield
    except SettingsError as error:
        fail(USAGE, text_of(error))
    except (LazypixError, OSError) as error:
        fail(FAILED, text_of(error))


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many were done."""
    columns = (SpinnerColumn(), TextColumn("{task.completed}"), TextColumn(what), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done: progress.update(task, completed=done)


def print_json(value: Any) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2))


def text_of(error: Exception) -> str:
    """Return what an error says."""
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)


def fail(code: int, message: str) -> NoReturn:
    """Say what is wrong, and end the command."""
    err.print(f"[red]Error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)
