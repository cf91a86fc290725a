"""Commands for jobs: see what is to be done, try the dead again, carry out."""

from __future__ import annotations

import json
import signal
import threading
from typing import Annotated, get_args

import typer
from rich.markup import escape
from rich.table import Table

from lazypix.catalog.jobs import JobState
from lazypix.cli.common import (
    FAILED,
    USAGE,
    DataOption,
    JsonOption,
    errors_told,
    fail,
    group,
    opened_library,
    out,
    print_json,
)
from lazypix.composition import make_renderers, make_runner, open_listening
from lazypix.engine.idle import IdleEngine
from lazypix.jobs.runner import JobRunner
from lazypix.settings import load

commands = group()
jobs = group("What is done in the background: see it, try the dead again, carry it out.")
commands.add_typer(jobs, name="jobs")

_STATES: tuple[JobState, ...] = get_args(JobState)

KindOption = Annotated[str | None, typer.Option("--kind", help="Only jobs of this kind.")]
IdentOption = Annotated[str | None, typer.Option("--ident", help="Only jobs of this image.")]
StateOption = Annotated[str | None, typer.Option("--state", help=f"Only those that are {', '.join(_STATES)}.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="Ids of jobs.", show_default=False)]


@jobs.command("list", epilog="Example: `lazypix jobs list --state dead`")
def list_(
    data: DataOption = None,
    kind: KindOption = None,
    state: StateOption = None,
    ident: IdentOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List jobs, oldest first."""
    with opened_library(data, IdleEngine(), tidies=False) as library:
        found = library.catalog.jobs.find(kind=kind, state=_state(state), ident=ident, limit=limit)
    if as_json:
        print_json([job.facts() for job in found])
        return
    table = Table("id", "state", "kind", "image", "attempts", "due", "error", box=None)
    for job in found:
        due = job.facts()["due"] or ""
        shown = (job.id, job.state, job.kind, job.ident or "", str(job.attempts), due[:19], job.error or "")
        table.add_row(*(escape(text) for text in shown))
    out.print(table)


@jobs.command(epilog="Example: `lazypix jobs count --json`")
def count(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Count jobs by kind and state."""
    with opened_library(data, IdleEngine(), tidies=False) as library:
        found = library.catalog.jobs.count()
    if as_json:
        print_json(found)
        return
    table = Table("kind", *_STATES, box=None)
    for kind, numbers in found.items():
        table.add_row(escape(kind), *(str(numbers.get(state, 0)) for state in _STATES))
    out.print(table)


@jobs.command(epilog="Example: `lazypix jobs retry --kind replicate:backup`")
def retry(
    ids: IdsArgument = None,
    data: DataOption = None,
    kind: KindOption = None,
    ident: IdentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Try dead jobs again, from the first attempt on."""
    _check_choice(ids, kind, ident, everything=everything)
    with opened_library(data, IdleEngine(), tidies=False) as library:
        number = library.catalog.jobs.retry(kind=kind, ident=ident, ids=ids or None)
    _tell(number, "retried", ids, as_json=as_json)


@jobs.command(epilog="Example: `lazypix jobs drop --state dead --kind warm`")
def drop(
    ids: IdsArgument = None,
    data: DataOption = None,
    kind: KindOption = None,
    state: StateOption = None,
    ident: IdentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every job.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove jobs; what they were for is not done."""
    _check_choice(ids, kind or state, ident, everything=everything)
    with opened_library(data, IdleEngine(), tidies=False) as library:
        number = library.catalog.jobs.drop(kind=kind, state=_state(state), ident=ident, ids=ids or None)
    _tell(number, "dropped", ids, as_json=as_json)


@jobs.command(epilog="Example: `lazypix jobs run --until-done`")
def run(
    data: DataOption = None,
    until_done: Annotated[bool, typer.Option("--until-done", help="End when nothing waits any more.")] = False,
) -> None:
    """Carry out jobs, until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with errors_told():
        settings = load({"data": data})
        with (
            open_listening(settings, make_renderers(settings)) as library,
            make_runner(settings, library) as runner,
        ):
            print("carrying out jobs", flush=True)
            if until_done:
                threading.Thread(target=_finish, args=(runner, stopped), daemon=True).start()
            stopped.wait()


def _finish(runner: JobRunner, stopped: threading.Event) -> None:
    runner.finish()
    stopped.set()


def _state(given: str | None) -> JobState | None:
    for state in _STATES:
        if state == given:
            return state
    if given is not None:
        fail(USAGE, f"state={given!r} is not accepted; accepted: {', '.join(_STATES)}")
    return None


def _check_choice(ids: list[str] | None, *choices: str | None, everything: bool) -> None:
    if not ids and not any(choices) and not everything:
        fail(USAGE, "Say which jobs: ids, --kind, --state, --ident or --all")


def _tell(number: int, done: str, ids: list[str] | None, *, as_json: bool) -> None:
    print(json.dumps({done: number}) if as_json else f"{done} {number} jobs")
    if ids and number < len(set(ids)):
        fail(FAILED, f"{len(set(ids)) - number} of these jobs were not found, or there was nothing to do with them")
