"""The command line: every group of commands, in the order in which help lists them."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from lazypix import __version__
from lazypix.cli import images, jobs, keys, links, moving, replicas, server, upkeep
from lazypix.cli.common import group

app = group(
    "Store an image once, ask for any size of it by URL.\n\n"
    "Settings come from `lazypix.toml` and `LAZYPIX_*` variables; `lazypix config` shows them.",
)
for each in (server, images, links, moving, upkeep, replicas, jobs, keys):
    app.add_typer(each.commands)


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
