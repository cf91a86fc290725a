"""Writes docs/reference from the code, or with --check tells whether it is up to date."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import typer

from lazypix import errors
from lazypix.cli.main import app
from lazypix.formats import FORMATS
from lazypix.setting_sources import PREFIX
from lazypix.settings import Settings
from lazypix.transform import OPTIONS

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Generated from the code by `make docs`; do not edit. -->\n\n"


def transforms() -> str:
    """The options of a transform."""
    rows = "\n".join(
        f"| `{option.name}` | {option.accepts} | {option.about.replace('|', '/')} |" for option in OPTIONS
    )
    return f"""# Transforms

A transform is written as a list of tokens joined by commas. The first may be a size, every other one is
`name=value`. The same names and values work in a query string, with `width` and `height` for the size:

    /image/300x200,fit=cover,gravity=north/<ident>.webp
    /image/<ident>.webp?width=300&height=200&fit=cover&gravity=north

| size | meaning |
|---|---|
| `300x200` | a box of 300 by 200 pixels; without `fit`: inside it, never enlarged |
| `300x` | a width of 300 pixels |
| `x200` | a height of 200 pixels |
| `full` | no size: the whole image, encoded anew |

They are carried out in this order: `crop`, `rotate`, `flip`, size with `fit` and `gravity`, `background`, encoding.
An unknown name, a malformed value, an option given twice or one that cannot have an effect is refused with status
400; the message names it and what is accepted.

| option | accepted | what it does |
|---|---|---|
{rows}
"""


def formats() -> str:
    """The table of formats."""
    rows = "\n".join(
        f"| {f.name} | `{f.mime}` | {', '.join('.' + e for e in f.extensions)} | {_yes(f.loads)} | {_yes(f.saves)} "
        f"| {_yes(f.animates)} | {_yes(f.alpha)} | {_yes(f.lossless)} | {f.default_quality or ''} |"
        for f in FORMATS
        if f.loads or f.saves
    )
    known = ", ".join(f.name for f in FORMATS if not f.loads)
    return f"""# Formats

| format | media type | extensions | read | written | animated | transparency | lossless | default quality |
|---|---|---|---|---|---|---|---|---|
{rows}

Recognised and refused by name: {known}. The numbers of two formats' qualities do not mean the same.
"""


def settings() -> str:
    """The settings."""
    rows = "\n".join(
        f"| `{name}` | `{PREFIX}{name.upper()}` | {_default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    )
    return f"""# Settings

From `lazypix.toml` in the working directory (or the file that `LAZYPIX_CONFIG` names), then from the environment,
then from the command line; what comes later wins. `lazypix config` prints what is in force, secrets masked.
All faults are reported at once, each with the name, the value and what is accepted.

| in the file | in the environment | default | what it is |
|---|---|---|---|
{rows}

`LAZYPIX_API_KEYS` and `LAZYPIX_URL_KEYS` hold several keys separated by commas.
"""


def error_codes() -> str:
    """The errors."""
    tree = (errors.__doc__ or "").split("::\n\n")[1].split("\n\nThe text")[0]
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.LazypixError)]
    rows = "\n".join(f"| {e.status} | `{e.code}` | {(e.__doc__ or '').strip()} |" for e in found)
    return f"""# Errors

Over HTTP an error is `{{"status": "error", "content": "<text>"}}` with the status below; the header `Lazypix-Error`
holds the code. In Python it is an exception of this tree, in `lazypix.errors`:

{tree}

| status | code | when |
|---|---|---|
{rows}
"""


def command_line() -> str:
    """The command line."""
    command = typer.main.get_command(app)
    parts = ["# Command line\n"]
    with click.Context(command, info_name="lazypix") as context:
        assert isinstance(command, click.Group) or hasattr(command, "commands")
        for name, sub in command.commands.items():
            parts += _described(name, sub, context)
    parts.append("Exit codes: 0 done; 1 something could not be done; 2 the command line or the settings are wrong.\n")
    return "\n".join(part for part in parts if part)


def _described(name: str, command: click.Command, parent: click.Context) -> list[str]:
    """Return a command's description, or those of the commands of a group."""
    with click.Context(command, info_name=name, parent=parent) as context:
        inner = getattr(command, "commands", None)
        if inner is not None:
            return [part for each, sub in inner.items() for part in _described(f"{name} {each}", sub, context)]
        usage = _usage(name, command, context)
    parts = [f"## {name}\n\n{(command.help or '').strip()}\n\n```\n{usage}\n```\n"]
    return parts + ([f"{command.epilog}\n"] if command.epilog else [])


def _usage(name: str, command: click.Command, context: click.Context) -> str:
    lines = [" ".join(("lazypix", name, *command.collect_usage_pieces(context)))]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            lines.append(f"  {record[0]:<28} {record[1]}")
    return "\n".join(line.rstrip() for line in lines)


def _yes(value: bool) -> str:
    return "yes" if value else ""


def _default(name: str) -> str:
    if name == "renderers":
        return "the number of cores"
    value = Settings().model_dump(mode="json")[name]
    return f"`{json.dumps(value)}`"


PAGES = {
    "transforms.md": transforms,
    "formats.md": formats,
    "settings.md": settings,
    "errors.md": error_codes,
    "command-line.md": command_line,
}


def main() -> int:
    """Write the pages; with --check only compare, and return 1 when one differs."""
    os.environ["COLUMNS"] = "110"
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, NOTE + make()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"docs/reference is not up to date ({', '.join(stale)}): run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
