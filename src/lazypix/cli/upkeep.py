"""Commands that keep a library in order."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.markup import escape

from lazypix.cli.common import (
    FAILED,
    USAGE,
    DataOption,
    JsonOption,
    KeyOption,
    Place,
    ServerOption,
    counting,
    err,
    fail,
    group,
    opened_anywhere,
    opened_library,
    print_json,
)
from lazypix.client.remote import Client
from lazypix.engine.idle import IdleEngine
from lazypix.stores import Repairable
from lazypix.upkeep.cleaning import collect_garbage
from lazypix.upkeep.cleaning import purge as purge_variants
from lazypix.upkeep.reindexing import reindex as reindex_library
from lazypix.upkeep.scrubbing import scrub as scrub_library
from lazypix.upkeep.verifying import Problem
from lazypix.upkeep.verifying import verify as verify_library

commands = group()


@commands.command(epilog="Example: `lazypix sweep --older-than 1200`")
def sweep(
    data: DataOption = None,
    older_than: Annotated[float, typer.Option("--older-than", min=600, help="Seconds of age.")] = 3600,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed processes left behind."""
    with opened_library(data, IdleEngine()) as library:
        removed = library.sweep(older_than_s=older_than)
    print(json.dumps({"removed": removed}) if as_json else f"removed {removed} leftovers")


@commands.command(epilog="Example: `lazypix verify --quick`")
def verify(
    data: DataOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes only, and read nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that every row has its blob with the right bytes, and every blob its row. Changes nothing."""
    bad = 0
    with opened_library(data, IdleEngine(), tidies=False) as library, counting("images verified") as count:
        for problem in verify_library(library, contents=not quick, progress=count):
            bad += problem.kind not in ("foreign blob", "variant missing")
            _tell(problem, as_json=as_json)
    if bad:
        fail(FAILED, f"{bad} problems; `lazypix scrub` mends originals, `lazypix gc` and `reindex` the rest")
    if not as_json:
        print("everything is as it should be")


@commands.command(epilog="Example: `lazypix scrub --older-than-days 30 --rate 20000000`")
def scrub(
    data: DataOption = None,
    older_than_days: Annotated[float, typer.Option(min=0, help="Only those not verified for so long.")] = 0,
    rate: Annotated[float, typer.Option(min=0, help="Bytes a second to read at most; 0: no bound.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Verify the originals, and mend damaged ones from the replicas."""
    with opened_library(data, IdleEngine()) as library, counting("originals verified") as count:
        report = scrub_library(
            library,
            bytes_per_s=rate,
            older_than_s=older_than_days * 86_400,
            progress=lambda report: count(report.checked),
        )
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        print(f"verified {report.checked} originals ({report.bytes} bytes)")
        for ident in report.mended:
            print(f"mended from a replica: {ident}")
        for ident in report.damaged:
            print(f"damaged: {ident}")
    if report.damaged:
        fail(FAILED, f"{len(report.damaged)} originals are damaged and could not be mended; they are not served")


@commands.command(epilog="Example: `lazypix gc`, look at what it says, then `lazypix gc --remove`")
def gc(
    data: DataOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them; without it they are only named.")] = False,
    originals: Annotated[
        bool, typer.Option("--originals", help="Also images that the catalog does not know; see `reindex` first.")
    ] = False,
    older_than: Annotated[float, typer.Option("--older-than", min=600, help="Seconds of age.")] = 3600,
    as_json: JsonOption = False,
) -> None:
    """Find orphans: blobs without a row, and rows of variants without a blob."""
    with opened_library(data, IdleEngine(), tidies=remove) as library:
        found = collect_garbage(library, remove=remove, originals=originals, older_than_s=older_than)
    if as_json:
        print_json({"removed": remove, **dataclasses.asdict(found)})
        return
    for problem in found.blobs:
        print(f"{problem.key}: {problem.kind}, {problem.size} bytes")
    for key in found.rows:
        print(f"{key}: row without a blob")
    for problem in found.kept:
        print(f"{problem.key}: {problem.kind}, kept")
    did = "removed" if remove else "would remove (with --remove)"
    print(f"{did} {len(found.blobs)} blobs ({found.bytes} bytes) and {len(found.rows)} rows; kept {len(found.kept)}")


@commands.command(epilog="Example: `lazypix reindex --data /srv/images`")
def reindex(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Rebuild the catalog from the store: give every original there a row, and every variant."""
    with opened_library(data, new=True) as library, counting("images looked at") as count:
        report = reindex_library(library, progress=lambda r: count(r.added + r.known + len(r.failed)))
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        print(f"added {report.added} images and {report.variants} variants; {report.known} images were known")
        if report.added:
            print("images that were deleted and kept (undelete_s) are back; delete them again")
        if report.without_sidecar:
            print(f"{report.without_sidecar} came without filename and metadata (see the setting sidecars)")
    for ident, reason in report.failed.items():
        err.print(f"[red]{escape(ident)}[/]: {escape(reason)}", highlight=False)
    if report.failed:
        fail(FAILED, f"{len(report.failed)} images were not taken in")


@commands.command(epilog="Example: `lazypix purge --size '300x*'` or `lazypix purge --unused-days 90`")
def purge(
    idents: Annotated[list[str] | None, typer.Argument(help="Images whose variants to drop.")] = None,
    data: DataOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    size: Annotated[str | None, typer.Option(help="Canonical text of the variants; `*` stands for anything.")] = None,
    unused_days: Annotated[float | None, typer.Option(min=0, help="Not read for so many days.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All variants of all images.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Drop stored variants; they are made again when they are asked for."""
    place = Place(data=data, server=server, key=key)
    number = size_bytes = 0
    unused_s = unused_days * 86_400 if unused_days is not None else None
    with opened_anywhere(place, IdleEngine()) as library, counting("variants dropped") as count:
        if isinstance(library, Client) and (not idents or size or unused_s is not None or everything or dry_run):
            fail(USAGE, "A server drops all variants of the images that are named, and nothing else")
        images: list[str | None] = [*idents] if idents else [None]
        for ident in images:
            if isinstance(library, Client):
                found = library.purge(ident or "")
            else:
                found = purge_variants(
                    library, ident=ident, size=size, unused_for_s=unused_s, everything=everything, dry_run=dry_run,
                    progress=count,
                )  # fmt: skip
            number, size_bytes = number + found[0], size_bytes + found[1]
    if as_json:
        print_json({"dropped": number, "bytes": size_bytes, "dry_run": dry_run})
    else:
        print(f"{'would drop' if dry_run else 'dropped'} {number} variants ({size_bytes} bytes)")


@commands.command(epilog="Example: `lazypix repair`")
def repair(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Compare the servers of a Beansdb store, and copy what is missing or older on some."""
    with opened_library(data, IdleEngine()) as library, counting("buckets compared") as count:
        store = library.store
        if not isinstance(store, Repairable):
            fail(
                FAILED, f"{store!r} keeps one copy of each blob; repair is for stores of several servers (beansdb://)"
            )
        report = store.repair(lambda done, _: count(done))
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        print(f"compared {report.compared} blobs, copied {report.copied}, deleted {report.deleted}")
    if report.failed:
        fail(FAILED, f"{report.failed} could not be repaired")


def _tell(problem: Problem, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(problem)))
    else:
        print(f"{problem.key}: {problem.kind}" + (f" ({problem.detail})" if problem.detail else ""))
