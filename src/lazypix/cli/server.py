"""Commands for the server: start it, show its settings."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lazypix import __version__
from lazypix.cli.common import DataOption, JsonOption, errors_told, group, out, print_json
from lazypix.composition import open_library
from lazypix.engine.idle import IdleEngine
from lazypix.settings import Settings, load, shown

commands = group()


@commands.command(epilog="Example: `lazypix serve --port 9000 --data /srv/images`")
def serve(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8000")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes.", show_default="1")] = None,
) -> None:
    """Start the HTTP server. SIGTERM ends it gently; the exit code is 1 if something was cut."""
    from lazypix.server.run import serve as run

    with errors_told():
        settings = load({"data": data, "host": host, "port": port, "workers": workers})
        code = run(settings, partial(_greet, settings))
    if code:
        raise typer.Exit(code)


@commands.command(epilog="Example: `LAZYPIX_PORT=9000 lazypix config`")
def config(
    as_json: JsonOption = False,
) -> None:
    """Show the settings in force; secrets are masked."""
    with errors_told():
        values = shown(load())
    if as_json:
        print_json(values)
        return
    table = Table("setting", "value", "what it is", box=None)
    for name, field in Settings.model_fields.items():
        table.add_row(name, escape(json.dumps(values[name])), escape(field.description or ""))
    out.print(table)


@commands.command(epilog="Example: `lazypix nginx --server-name img.example | sudo tee /etc/nginx/conf.d/l.conf`")
def nginx(
    data: DataOption = None,
    server_name: Annotated[str, typer.Option(help="Name that nginx serves; `_`: any.")] = "_",
    listen: Annotated[str, typer.Option(help="Where nginx listens, such as `80` or `443 ssl`.")] = "80",
    cache_dir: Annotated[Path, typer.Option(help="Folder of nginx' cache.")] = Path("/var/cache/lazypix"),
    upstream: Annotated[
        list[str] | None,
        typer.Option(
            help="Where lazypix listens; several servers: given once for each.",
            show_default="host and port of the settings",
        ),
    ] = None,
) -> None:
    """Print a configuration of nginx that belongs to the settings in force."""
    from lazypix.nginx import configuration, front_of

    with errors_told():
        settings = load({"data": data})
        with open_library(settings, IdleEngine()) as library:
            front = front_of(
                settings,
                library,
                server_name=server_name,
                listen=listen,
                cache_dir=cache_dir,
                upstreams=upstream or (),
            )
        print(configuration(front), end="")


def _greet(settings: Settings, port: int) -> None:
    """Tell what to do next, with lines that can be pasted."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    here = f"http://{host}:{port}"
    key = " -H 'Authorization: Bearer <key>'" if settings.writes_need_keys else ""
    out.print(f"[bold]lazypix {__version__}[/] on {here}, data in {settings.data.absolute()}", soft_wrap=True)
    out.print("Next, in another terminal:", highlight=False)
    out.print(f"  curl{key} -F image=@photo.jpg -F ident=hello {here}/upload", highlight=False, soft_wrap=True)
    out.print("and in a browser:", highlight=False)
    out.print(f"  {here}/image/300x200,fit=cover/hello.auto", highlight=False, soft_wrap=True)
