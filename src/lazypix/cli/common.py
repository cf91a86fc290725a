"""What the commands share: options, output, and how errors end a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lazypix.client.remote import Client
from lazypix.composition import make_addresses, open_library
from lazypix.engine import Engine
from lazypix.errors import LazypixError, SettingsError
from lazypix.library import Library
from lazypix.settings import Settings, load

FAILED, USAGE = 1, 2
"""Exit codes: something could not be done; the command line or the settings are wrong."""

out = Console()
err = Console(stderr=True)

DataOption = Annotated[Path | None, typer.Option("--data", "-d", help="Folder of the library.", show_default="data")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", help="Ask this server instead, such as `https://img.example`.", show_default="LAZYPIX_SERVER"
    ),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", help="API key for the server.", show_default="LAZYPIX_KEY")
]  # fmt: skip
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a command finds the library, as far as its options say."""

    data: Path | None
    server: str | None
    key: str | None


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
def opened_anywhere(place: Place, engine: Engine | None = None, **options: bool) -> Iterator[Library | Client]:
    """Open the library of a place, or a client of its server; end the command when something fails.

    A folder that is named goes before a server that the settings name. `options` are those of `opened_library`.
    """
    with errors_told():
        if place.data is not None and place.server is not None:
            fail(USAGE, "--data and --server are two places; accepted: one of them")
        settings = load({"server": place.server, "key": place.key})
        if settings.server and place.data is None:
            with make_remote(settings) as client:
                yield client
            return
    with opened_library(place.data, engine, **options) as library:
        yield library


def make_remote(settings: Settings) -> Client:
    """Make the client of the server that the settings name; it signs addresses with their keys.

    Raises:
        SettingsError: the server's address or the key are malformed.
    """
    addresses = replace(make_addresses(settings), base_url=settings.server)
    key = settings.key.get_secret_value() if settings.key is not None else None
    return Client(settings.server, key, addresses=addresses)


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
