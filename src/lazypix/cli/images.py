"""Commands on images: store, list, write, delete."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from lazypix.catalog import Image, Search
from lazypix.cli.common import (
    FAILED,
    USAGE,
    DataOption,
    JsonOption,
    KeyOption,
    Place,
    ServerOption,
    err,
    fail,
    group,
    opened_anywhere,
    out,
    print_json,
    text_of,
)
from lazypix.client.remote import Client
from lazypix.engine.idle import IdleEngine
from lazypix.errors import LazypixError
from lazypix.formats import by_extension

commands = group()

IdentArgument = Annotated[str, typer.Argument(help="The image's ident, as `add` printed it.")]


@commands.command(epilog="Example: `lazypix add holiday/*.jpg` or `lazypix add https://a.example/b.png --ident b`")
def add(
    files: Annotated[list[str], typer.Argument(help="Image files, folders to take all images from, or URLs.")],
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    ident: Annotated[str | None, typer.Option(help="Ident to give, for one file. Default: a new one.")] = None,
    meta: Annotated[list[str] | None, typer.Option("--meta", "-m", help="`name=value` to keep with it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Store originals, and print an ident for each."""
    paths = list(_image_files(files))
    if not paths:
        fail(FAILED, f"There are no images in {', '.join(files)}")
    if ident is not None and len(paths) != 1:
        fail(USAGE, f"--ident goes with one file; {len(paths)} were given")
    metadata = dict(_pairs("--meta", meta or []))
    failed = 0
    with (
        opened_anywhere(Place(data=data, server=server, key=key), new=True) as library,
        _progress(paths, sending=isinstance(library, Client)) as told,
    ):
        for path in paths:
            try:
                if isinstance(library, Client) and isinstance(path, Path):
                    image = library.add(path, ident=ident, metadata=metadata, progress=told.sent)
                elif isinstance(path, Path):
                    image = library.add(path, ident=ident, metadata=metadata)
                else:
                    image = library.add_url(path, ident=ident, metadata=metadata)
            except (LazypixError, OSError) as error:
                failed += 1
                err.print(f"[red]{escape(str(path))}[/]: {escape(text_of(error))}", highlight=False)
            else:
                _print_added(path, image, as_json=as_json)
            told.step()
    if failed:
        fail(FAILED, f"{failed} of {len(paths)} files were not added")


@commands.command(epilog="Example: `lazypix get 0199… 300x200,fit=cover -o thumb.webp`")
def get(
    ident: IdentArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; its extension is the format. `-`: standard output.")
    ],
    transform: Annotated[str, typer.Argument(help="What to make, such as `300x200,fit=cover`.")] = "full",
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    original: Annotated[bool, typer.Option("--original", help="Write the original instead, untouched.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a variant of an image to a file."""
    with opened_anywhere(Place(data=data, server=server, key=key)) as library:
        if original:
            _check_original(library.get(ident), transform, output)
            body = library.original(ident)
        else:
            body = library.variant(ident, transform, format=_format_of(output)).body
    if str(output) == "-":
        sys.stdout.buffer.write(body)
        return
    try:
        output.write_bytes(body)
    except OSError as error:
        fail(FAILED, f"Cannot write {output} ({error.strerror})")
    if as_json:
        print_json({"file": str(output), "size": len(body)})
    else:
        err.print(f"{output}: {len(body)} bytes", highlight=False)


@commands.command(epilog="Example: `lazypix info 0199… --json`")
def info(
    ident: IdentArgument,
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of an image, and which variants are stored."""
    with opened_anywhere(Place(data=data, server=server, key=key), IdleEngine(), tidies=False) as library:
        facts = library.get(ident).facts()
        facts["variants"] = [variant.facts() for variant in library.variants(ident)]
    if as_json:
        print_json(facts)
        return
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if name == "variants":
            value = "\n".join(f"{v['name']} ({v['size']} bytes)" for v in facts["variants"]) or "none yet"
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    out.print(table)


@commands.command("list", epilog="Example: `lazypix list -w meta.album=holiday --limit 1000 --json | jq -r .ident`")
def list_images(
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    before: Annotated[str | None, typer.Option(help="Continue after this ident.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            help="`filename=<beginning>`, `meta.<name>=<value>`, `smallest=<bytes>`, `largest=<bytes>`, "
            "`created_from=<date>`, `created_before=<date>`, `order=newest|oldest|filename|largest|smallest`.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List images, newest first or as `--where` says; with --json one object a line."""
    with opened_anywhere(Place(data=data, server=server, key=key), IdleEngine(), tidies=False) as library:
        images = library.list(limit=limit, before=before, search=Search.of(_pairs("--where", where or [])))
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
    out.print(table)


@commands.command(epilog="Example: `lazypix delete 0199… --yes`")
def delete(
    idents: Annotated[list[str], typer.Argument(help="Idents of the images to delete.")],
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    for_good: Annotated[bool, typer.Option("--for-good", help="Even if the setting undelete_s keeps them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete images with all their variants."""
    if not yes and not typer.confirm(f"Delete {len(idents)} image(s) with all variants?", err=True):
        fail(FAILED, "Nothing was deleted")
    failed = 0
    with opened_anywhere(Place(data=data, server=server, key=key), IdleEngine()) as library:
        for ident in idents:
            try:
                library.delete(ident, for_good=for_good)
            except LazypixError as error:
                failed += 1
                err.print(f"[red]{escape(ident)}[/]: {escape(text_of(error))}", highlight=False)
            else:
                print(json.dumps({"deleted": ident}) if as_json else f"deleted {ident}")
    if failed:
        fail(FAILED, f"{failed} of {len(idents)} images were not deleted")


@commands.command(epilog="Example: `lazypix undelete 0199…`")
def undelete(
    idents: Annotated[list[str], typer.Argument(help="Idents of images that were deleted a while ago.")],
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have deleted images back, as long as the setting undelete_s keeps them."""
    with opened_anywhere(Place(data=data, server=server, key=key), IdleEngine()) as library:
        for ident in idents:
            image = library.undelete(ident)
            print(json.dumps(image.facts()) if as_json else f"{ident} is back")


class _Bar:
    """Shows how many files are added, and how much of the one that is being sent."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._files = progress.add_task("adding", total=total, sent="")

    def step(self) -> None:
        """One more is done, or failed."""
        self._progress.update(self._files, advance=1, sent="")

    def sent(self, sent: int, total: int) -> None:
        """Tell of a file that is sent to a server."""
        shown = f"{sent / 1e6:.1f} of {total / 1e6:.1f} MB"
        self._progress.update(self._files, sent=shown)


@contextmanager
def _progress(paths: Sequence[Path | str], *, sending: bool) -> Iterator[_Bar]:
    """Show a progress bar for many files, or for what is sent; on a terminal only.

    What is printed stays out of it, unless it goes to the terminal too: it is for whoever reads the output.
    """
    shown = err.is_terminal and (sending or len(paths) > 1)
    columns = (
        TextColumn("adding"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[sent]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(
        *columns, console=err, disable=not shown, transient=True, redirect_stdout=out.is_terminal
    ) as progress:
        yield _Bar(progress, len(paths))


def _image_files(names: list[str]) -> Iterator[Path | str]:
    """Yield the files and URLs that are named; a folder is all images in it."""
    for name in names:
        path = Path(name)
        if name.startswith(("http://", "https://")):
            yield name
        elif path.is_dir():
            found = (child for child in sorted(path.rglob("*")) if child.is_file())
            yield from (child for child in found if _is_readable(child))
        else:
            yield path


def _is_readable(path: Path) -> bool:
    found = by_extension(path.suffix[1:])
    return found is not None and found.loads


def _pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(USAGE, f"{option} {text!r} is not accepted; accepted: name=value")
        pairs.append((name, value))
    return pairs


def _check_original(image: Image, transform: str, output: Path) -> None:
    """Refuse to write an original under another format's name, or as if it were made smaller."""
    wanted = _format_of(output)
    if transform != "full":
        fail(USAGE, f"--original goes without a size; {transform!r} was given")
    if wanted not in (None, image.format):
        fail(USAGE, f"The original is {image.format}; {output} would name it {wanted}")


def _format_of(output: Path) -> str | None:
    if str(output) == "-" or not output.suffix:
        return None
    found = by_extension(output.suffix[1:])
    return found.name if found else output.suffix[1:]


def _print_added(path: Path | str, image: Image, *, as_json: bool) -> None:
    print(json.dumps(image.facts()) if as_json else f"{image.ident}  {path}")
