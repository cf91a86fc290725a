"""Commands that keep a library in order."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lazypix.cli.common import DataOption, JsonOption, group, opened_library
from lazypix.engine.idle import IdleEngine

commands = group()


@commands.command(epilog="Example: `lazypix sweep --older-than 600`")
def sweep(
    data: DataOption = None,
    older_than: Annotated[float, typer.Option("--older-than", min=60, help="Seconds of age.")] = 3600,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed processes left behind."""
    with opened_library(data, IdleEngine()) as library:
        removed = library.sweep(older_than_s=older_than)
    print(json.dumps({"removed": removed}) if as_json else f"removed {removed} leftovers")
