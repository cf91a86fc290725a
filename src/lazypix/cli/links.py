"""Commands on addresses: write and sign one, make a key."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Annotated

import typer

from lazypix.cli.common import USAGE, JsonOption, ServerOption, errors_told, fail, group
from lazypix.composition import make_addresses
from lazypix.settings import load
from lazypix.signing.links import new_key

commands = group()

_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@commands.command(
    epilog="Example: `lazypix url 0199… 300x200,fit=cover --format webp` or "
    "`lazypix url 0199… @thumb --expires 1h --scope 800x800`"
)
def url(
    ident: Annotated[str, typer.Argument(help="The image's ident, as `add` printed it.")],
    transform: Annotated[str, typer.Argument(help="What it shall be, such as `300x200` or `@thumb`.")] = "full",
    format: Annotated[str | None, typer.Option("--format", "-f", help="Default: the client decides.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Sign it for this long: `90s`, `15m`, `1h`, `7d`. Default: for ever.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="Sign it for this: `exact`, `presets`, or `<width>x<height>` for any size up to that."),
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the URL of a variant; signed when the settings or the options say so."""
    with errors_told():
        settings = load({"server": server})
        addresses = make_addresses(settings)
        if settings.server:
            addresses = replace(addresses, base_url=settings.server)
        found = addresses.url(ident, transform, format=format, expires_s=_seconds(expires), scope=scope)
    print(json.dumps({"url": found}) if as_json else found)


@commands.command("url-key", epilog="Example: `lazypix url-key`, and put what it prints first in `url_keys`")
def url_key(
    name: Annotated[str | None, typer.Option("--id", help="Up to 16 of a-z 0-9. Default: a random one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a fresh key for signed links, as the setting `url_keys` wants it. It is kept nowhere."""
    try:
        key = new_key(name)
    except ValueError as error:
        fail(USAGE, f"--id {name!r}: {error}")
    print(json.dumps({"url_key": key}) if as_json else key)


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        fail(USAGE, f"--expires {text!r} is not accepted; accepted: a number of seconds, or 15m, 1h, 7d")
    return int(match[1]) * _SECONDS[match[2]]
