"""Commands for replicas: compare them with the library, and repair them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Annotated, Any

import typer
from rich.markup import escape

from lazypix.cli.common import (
    FAILED,
    USAGE,
    DataOption,
    JsonOption,
    counting,
    err,
    fail,
    group,
    opened_library,
    print_json,
)
from lazypix.engine.idle import IdleEngine
from lazypix.library import Library
from lazypix.orders import replicate
from lazypix.replicas.replica import Replica
from lazypix.upkeep.mirroring import FAULTS, Difference, Mirror, compare
from lazypix.upkeep.mirroring import repair as repair_replica

commands = group()
replicas = group("Copies in other stores: compare them with the library, and repair them.")
commands.add_typer(replicas, name="replicas")

NamesArgument = Annotated[
    list[str] | None, typer.Argument(help="Names of replicas. Default: all.", show_default=False)
]
ContentsOption = Annotated[bool, typer.Option("--contents", help="Read every blob, and compare its hash.")]


@replicas.command(epilog="Example: `lazypix replicas status` or `lazypix replicas status mirror --contents --json`")
def status(
    names: NamesArgument = None,
    data: DataOption = None,
    contents: ContentsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what is missing, different or superfluous in replicas. Changes nothing."""
    told: list[dict[str, Any]] = []
    faults = 0
    with opened_library(data, IdleEngine(), tidies=False) as library:
        for replica in _named(library, names):
            numbers: Counter[str] = Counter()
            with counting(f"images compared with {replica.name}") as count:
                for difference in compare(Mirror(library, replica), library, contents=contents, progress=count):
                    numbers[difference.kind] += 1
                    _tell(replica, difference, as_json=as_json, told=told)
            faults += sum(numbers[kind] for kind in FAULTS)
            _sum_up(library, replica, numbers, as_json=as_json, told=told)
    if as_json:
        print_json(told)
    if faults:
        fail(FAILED, f"{faults} blobs are not as they should be; `lazypix replicas repair` mends them")


@replicas.command(epilog="Example: `lazypix replicas repair mirror`")
def repair(
    names: NamesArgument = None,
    data: DataOption = None,
    contents: ContentsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put what is missing or different in replicas, and remove what is left of deleted images."""
    told: list[dict[str, Any]] = []
    failed = 0
    with opened_library(data, IdleEngine()) as library:
        for replica in _named(library, names):
            mended = 0
            with counting(f"images compared with {replica.name}") as count:
                for found, error in repair_replica(
                    Mirror(library, replica), library, contents=contents, progress=count
                ):
                    if error is None:
                        mended += 1
                        _tell(replica, found, as_json=as_json, told=told)
                    else:
                        failed += 1
                        err.print(f"[red]{escape(found.key)}[/]: {escape(error)}", highlight=False)
            if not as_json:
                print(f"{replica.name}: mended {mended} blobs")
    if as_json:
        print_json(told)
    if failed:
        fail(FAILED, f"{failed} blobs could not be mended")


def _named(library: Library, names: list[str] | None) -> list[Replica]:
    known = {replica.name: replica for replica in library.replicas}
    if not known:
        fail(USAGE, "There are no replicas; the setting `replicas` makes some")
    for name in names or ():
        if name not in known:
            fail(USAGE, f"There is no replica {name!r}; accepted: {', '.join(known)}")
    return [known[name] for name in names or known]


def _tell(replica: Replica, difference: Difference, *, as_json: bool, told: list[dict[str, Any]]) -> None:
    if as_json:
        told.append({"replica": replica.name, **dataclasses.asdict(difference)})
    else:
        detail = f" ({difference.detail})" if difference.detail else ""
        print(f"{replica.name}: {difference.key}: {difference.kind}{detail}")


def _sum_up(
    library: Library, replica: Replica, numbers: Counter[str], *, as_json: bool, told: list[dict[str, Any]]
) -> None:
    jobs = library.catalog.jobs.count().get(replicate(replica.name), {})
    if as_json:
        told.append({"replica": replica.name, "kind": "sum", **numbers, "jobs": jobs})
        return
    found = ", ".join(f"{number} {kind}" for kind, number in sorted(numbers.items())) or "all is there"
    waiting = ", ".join(f"{number} {state}" for state, number in jobs.items()) or "none"
    print(f"{replica.name}: {found}; jobs: {waiting}")
