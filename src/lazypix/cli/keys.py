"""Commands for API keys: make one, see what they use, revoke."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from lazypix.catalog.key_rows import KeyRecord, Quotas
from lazypix.cli.common import USAGE, DataOption, JsonOption, fail, group, opened_library, out, print_json
from lazypix.credentials import SCOPES
from lazypix.engine.idle import IdleEngine

commands = group()
keys = group("API keys in the catalog: what they may do, and how much.")
commands.add_typer(keys, name="keys")

_BYTES = re.compile(r"([0-9]{1,12})(?:([KMGT])(?:i?B)?)?", re.ASCII)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@keys.command(epilog="Example: `lazypix keys add shop --scope upload --max-images 10000 --max-bytes 10G`")
def add(
    name: Annotated[str, typer.Argument(help="What the key is for, for people.", show_default=False)],
    data: DataOption = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help=f"{', '.join(SCOPES)} (all of them); may be repeated.")
    ] = None,
    max_images: Annotated[int, typer.Option(min=0, help="Images that it may have at once; 0: no limit.")] = 0,
    max_bytes: Annotated[
        str, typer.Option(help="Bytes of its originals together, such as 10G; K, M, G, T are powers of 1024.")
    ] = "0",
    per_minute: Annotated[int, typer.Option(min=0, help="Requests a minute; 0: no limit.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print it: once, it is kept nowhere.

    From then on requests without a key are refused, also on loopback.
    """
    with opened_library(data, IdleEngine(), new=True, tidies=False) as library:
        quotas = Quotas(max_images=max_images, max_bytes=_bytes(max_bytes), per_minute=per_minute)
        record, key = library.catalog.keys.make(name, scope or ["upload"], quotas)
    if as_json:
        print_json(record.facts() | {"key": key.text})
    else:
        print(key.text)


@keys.command("list", epilog="Example: `lazypix keys list`")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List keys with what they use, oldest first; not the keys themselves."""
    with opened_library(data, IdleEngine(), tidies=False) as library:
        found = library.catalog.keys.list()
    if as_json:
        print_json([record.facts() for record in found])
        return
    whole = [Column(name, no_wrap=True) for name in ("images", "bytes", "a minute", "revoked")]
    name = Column("name", min_width=8, overflow="fold")
    table = Table(Column("id", no_wrap=True), name, "scopes", *whole, box=None)
    for record in found:
        table.add_row(*(escape(text) for text in _row(record)))
    out.print(table)


@keys.command(epilog="Example: `lazypix keys revoke 5f2a90c1d3e4`")
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `lazypix keys list` shows it.", show_default=False)],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key good for nothing: for uploads at once, for all else within seconds. Its images stay."""
    with opened_library(data, IdleEngine(), tidies=False) as library:
        record = library.catalog.keys.revoke(id)
    if as_json:
        print_json(record.facts())
    else:
        print(f"revoked {record.id} ({record.name})")


def _row(record: KeyRecord) -> tuple[str, ...]:
    quotas = record.quotas
    images, size = _of(record.images, quotas.max_images), _of(record.bytes, quotas.max_bytes, _short)
    revoked = record.revoked.isoformat()[:10] if record.revoked else ""
    return (record.id, record.name, ", ".join(record.scopes), images, size, str(quotas.per_minute or ""), revoked)


def _of(used: int, most: int, text: Callable[[int], str] = str) -> str:
    return f"{text(used)} of {text(most)}" if most else text(used)


def _short(size: int) -> str:
    """Write a number of bytes in the units of `--max-bytes`, to three digits; `--json` has them all."""
    unit = max((name for name in _UNITS if size >> _UNITS[name]), key=_UNITS.__getitem__, default="")
    return f"{float(f'{size / (1 << _UNITS[unit]):.3g}'):g}{unit}"


def _bytes(text: str) -> int:
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        fail(USAGE, f"max-bytes={text!r} is not accepted; accepted: a number of bytes, or such as 500M, 10G, 2T")
    return int(match[1]) << _UNITS[match[2] or ""]
