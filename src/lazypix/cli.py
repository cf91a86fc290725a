"""The command line: thin over `Library`, with the settings' library underneath."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from lazypix import __version__
from lazypix.catalog import Image
from lazypix.engine import Engine
from lazypix.engine.idle import IdleEngine
from lazypix.errors import LazypixError, SettingsError
from lazypix.formats import by_extension
from lazypix.library import Library
from lazypix.settings import Settings, load, open_library, shown

FAILED, USAGE = 1, 2
"""Exit codes: something could not be done; the command line or the settings are wrong."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Store an image once, ask for any size of it by URL.\n\n"
    "Settings come from `lazypix.toml` and `LAZYPIX_*` variables; `lazypix config` shows them.",
)
_out = Console()
_err = Console(stderr=True)

DataOption = Annotated[Path | None, typer.Option("--data", "-d", help="Folder of the library.", show_default="data")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
IdentArgument = Annotated[str, typer.Argument(help="The image's ident, as `add` printed it.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lazypix {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)


@app.command(epilog="Example: `lazypix serve --port 9000 --data /srv/images`")
def serve(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8000")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes.", show_default="1")] = None,
) -> None:
    """Start the HTTP server."""
    from lazypix.server.run import serve as run

    with _errors_told():
        settings = load({"data": data, "host": host, "port": port, "workers": workers})
        run(settings, partial(_greet, settings))


@app.command(epilog="Example: `lazypix add holiday/*.jpg` or `lazypix add portrait.png --ident alice`")
def add(
    files: Annotated[list[Path], typer.Argument(help="Image files, or folders to take all images from.")],
    data: DataOption = None,
    ident: Annotated[str | None, typer.Option(help="Ident to give, for one file. Default: a new one.")] = None,
    meta: Annotated[list[str] | None, typer.Option("--meta", "-m", help="`name=value` to keep with it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Store originals, and print an ident for each."""
    paths = list(_image_files(files))
    if ident is not None and len(paths) != 1:
        _fail(USAGE, f"--ident goes with one file; {len(paths)} were given")
    metadata = _metadata(meta or [])
    failed = 0
    with _library(data) as library, _progress(len(paths)) as step:
        for path in paths:
            try:
                image = library.add(path, ident=ident, metadata=metadata)
            except (LazypixError, OSError) as error:
                failed += 1
                _err.print(f"[red]{escape(str(path))}[/]: {escape(_text(error))}", highlight=False)
            else:
                _print_added(path, image, as_json=as_json)
            step()
    if failed:
        _fail(FAILED, f"{failed} of {len(paths)} files were not added")


@app.command(epilog="Example: `lazypix get 0199… 300x200,fit=cover -o thumb.webp`")
def get(
    ident: IdentArgument,
    transform: Annotated[str, typer.Argument(help="What to make, such as `300x200,fit=cover`.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; its extension is the format. `-`: standard output.")
    ],
    data: DataOption = None,
    original: Annotated[bool, typer.Option("--original", help="Write the original instead, untouched.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a variant of an image to a file."""
    with _library(data) as library:
        if original:
            body = library.original(ident)
        else:
            body = library.variant(ident, transform, format=_format_of(output)).body
    if str(output) == "-":
        sys.stdout.buffer.write(body)
        return
    try:
        output.write_bytes(body)
    except OSError as error:
        _fail(FAILED, f"Cannot write {output} ({error.strerror})")
    if as_json:
        _print_json({"file": str(output), "size": len(body)})
    else:
        _err.print(f"{output}: {len(body)} bytes", highlight=False)


@app.command(epilog="Example: `lazypix info 0199… --json`")
def info(ident: IdentArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what is known of an image, and which variants are stored."""
    with _library(data, IdleEngine()) as library:
        facts = library.get(ident).facts()
        facts["variants"] = [variant.facts() for variant in library.variants(ident)]
    if as_json:
        _print_json(facts)
        return
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if name == "variants":
            value = "\n".join(f"{v['name']} ({v['size']} bytes)" for v in facts["variants"]) or "none yet"
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    _out.print(table)


@app.command("list", epilog="Example: `lazypix list --limit 1000 --json | jq -r .ident`")
def list_images(
    data: DataOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 100,
    before: Annotated[str | None, typer.Option(help="Continue after this ident.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List images, newest first; with --json one object a line."""
    with _library(data, IdleEngine()) as library:
        images = library.list(limit=limit, before=before)
    if as_json:
        for image in images:
            print(json.dumps(image.facts()))
        return
    longest = max((len(image.ident) for image in images), default=0)  # an ident is to be copied, so never cut off
    ident = Column("ident", min_width=longest, no_wrap=True)
    table = Table(ident, "format", "size", "bytes", "created", "filename", box=None)
    for image in images:
        size = f"{image.width}x{image.height}"
        created = f"{image.created:%Y-%m-%d %H:%M}"
        table.add_row(image.ident, image.format, size, str(image.size), created, escape(image.filename or ""))
    _out.print(table)


@app.command(epilog="Example: `lazypix delete 0199… --yes`")
def delete(
    idents: Annotated[list[str], typer.Argument(help="Idents of the images to delete.")],
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete images with all their variants, for good."""
    if not yes and not typer.confirm(f"Delete {len(idents)} image(s) with all variants, for good?", err=True):
        _fail(FAILED, "Nothing was deleted")
    failed = 0
    with _library(data, IdleEngine()) as library:
        for ident in idents:
            try:
                library.delete(ident)
            except LazypixError as error:
                failed += 1
                _err.print(f"[red]{escape(ident)}[/]: {escape(_text(error))}", highlight=False)
            else:
                print(json.dumps({"deleted": ident}) if as_json else f"deleted {ident}")
    if failed:
        _fail(FAILED, f"{failed} of {len(idents)} images were not deleted")


@app.command(epilog="Example: `lazypix url 0199… 300x200,fit=cover --format webp`")
def url(
    ident: IdentArgument,
    transform: Annotated[str, typer.Argument(help="What it shall be, such as `300x200`.")] = "full",
    format: Annotated[str | None, typer.Option("--format", "-f", help="Default: the client decides.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the URL of a variant."""
    from lazypix.dialects.native import address

    with _errors_told():
        found = load().base_url.rstrip("/") + address(ident, transform, format)
    print(json.dumps({"url": found}) if as_json else found)


@app.command(epilog="Example: `LAZYPIX_PORT=9000 lazypix config`")
def config(
    as_json: JsonOption = False,
) -> None:
    """Show the settings in force; secrets are masked."""
    with _errors_told():
        values = shown(load())
    if as_json:
        _print_json(values)
        return
    table = Table("setting", "value", "what it is", box=None)
    for name, field in Settings.model_fields.items():
        table.add_row(name, escape(json.dumps(values[name])), escape(field.description or ""))
    _out.print(table)


@app.command(epilog="Example: `lazypix sweep --older-than 600`")
def sweep(
    data: DataOption = None,
    older_than: Annotated[float, typer.Option("--older-than", min=60, help="Seconds of age.")] = 3600,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed processes left behind."""
    with _library(data, IdleEngine()) as library:
        removed = library.sweep(older_than_s=older_than)
    print(json.dumps({"removed": removed}) if as_json else f"removed {removed} leftovers")


@app.command(epilog="Example: `lazypix nginx --server-name img.example | sudo tee /etc/nginx/conf.d/lazypix.conf`")
def nginx(
    data: DataOption = None,
    server_name: Annotated[str, typer.Option(help="Name that nginx serves; `_`: any.")] = "_",
    listen: Annotated[str, typer.Option(help="Where nginx listens, such as `80` or `443 ssl`.")] = "80",
    cache_dir: Annotated[Path, typer.Option(help="Folder of nginx' cache.")] = Path("/var/cache/lazypix"),
    upstream: Annotated[
        str | None, typer.Option(help="Where lazypix listens.", show_default="host and port of the settings")
    ] = None,
) -> None:
    """Print a configuration of nginx that belongs to the settings in force."""
    from lazypix.nginx import configuration, front_of

    with _errors_told():
        settings = load({"data": data})
        with open_library(settings, IdleEngine()) as library:
            front = front_of(
                settings,
                library,
                server_name=server_name,
                listen=listen,
                cache_dir=cache_dir,
                upstream=upstream or "",
            )
        print(configuration(front), end="")


def _greet(settings: Settings, port: int) -> None:
    """Tell what to do next, with lines that can be pasted."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    here = f"http://{host}:{port}"
    key = " -H 'Authorization: Bearer <key>'" if settings.api_keys else ""
    _out.print(f"[bold]lazypix {__version__}[/] on {here}, data in {settings.data.absolute()}", soft_wrap=True)
    _out.print("Next, in another terminal:", highlight=False)
    _out.print(f"  curl{key} -F image=@photo.jpg -F ident=hello {here}/upload", highlight=False, soft_wrap=True)
    _out.print("and in a browser:", highlight=False)
    _out.print(f"  {here}/image/300x200,fit=cover/hello.auto", highlight=False, soft_wrap=True)


@contextmanager
def _library(data: Path | None, engine: Engine | None = None) -> Iterator[Library]:
    with _errors_told(), open_library(load({"data": data}), engine) as library:
        yield library


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        _fail(USAGE, _text(error))
    except (LazypixError, OSError) as error:
        _fail(FAILED, _text(error))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar for many files, on a terminal only."""
    columns = (TextColumn("adding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err, disable=total < 2 or not _err.is_terminal, transient=True) as progress:
        task = progress.add_task("adding", total=total)
        yield lambda: progress.advance(task)


def _image_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = (child for child in sorted(path.rglob("*")) if child.is_file())
            yield from (child for child in found if _is_readable(child))
        else:
            yield path


def _is_readable(path: Path) -> bool:
    found = by_extension(path.suffix[1:])
    return found is not None and found.loads


def _metadata(pairs: list[str]) -> dict[str, str]:
    metadata = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            _fail(USAGE, f"--meta {pair!r} is not accepted; accepted: name=value")
        metadata[name] = value
    return metadata


def _format_of(output: Path) -> str | None:
    if str(output) == "-" or not output.suffix:
        return None
    found = by_extension(output.suffix[1:])
    return found.name if found else output.suffix[1:]


def _print_added(path: Path, image: Image, *, as_json: bool) -> None:
    print(json.dumps(image.facts()) if as_json else f"{image.ident}  {path}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _text(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)


def _fail(code: int, message: str) -> None:
    _err.print(f"[red]Error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)
