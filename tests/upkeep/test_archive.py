"""Archives: written whole, read again, resumed."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine import pictures as p
from tests.upkeep.archives import exported, imported, members
from tests.upkeep.libraries import JPG, PNG, check_same, fill
from tests.waiting import WAIT_S
from tests.watched import all_blobs

from lazypix import Library
from lazypix.engine.idle import IdleEngine
from lazypix.errors import StoreFull
from lazypix.stores.memory import MemoryStore
from lazypix.upkeep.archive import export_library
from lazypix.upkeep.report import Report

Open = Callable[..., Library]


def test_what_is_exported_is_imported(opened: Open) -> None:
    fill(source := opened("source"))
    archive = exported(source)
    target = opened()
    seen: list[Report] = []
    report = imported(target, archive, progress=seen.append)
    assert (report.copied, report.deleted, report.skipped, report.failed, report.variants) == (6, 1, 0, 0, 0)
    assert seen[-1] == report
    check_same(source, target, variants=False)
    again = imported(target, archive)
    assert (again.copied, again.deleted, again.skipped, again.failed) == (0, 0, 7, 0)
    check_same(source, target, variants=False)
    all_blobs(target)


def test_variants_are_taken_from_an_archive_that_is_trusted(opened: Open) -> None:
    fill(source := opened("source"))
    archive = exported(source, variants=True)
    distrustful, trusting = opened("distrustful"), opened(engine=IdleEngine(), store=MemoryStore())
    assert imported(distrustful, archive).variants == 0
    check_same(source, distrustful, variants=False)
    assert imported(trusting, archive, trust=True).variants == 3
    check_same(source, trusting)
    assert imported(trusting, archive, trust=True).variants == 0
    assert imported(distrustful, archive, trust=True).variants == 3  # of images that are there already
    check_same(source, distrustful)


def test_anybody_can_unpack_it_and_pack_it_again(opened: Open, tmp_path: Path) -> None:
    fill(source := opened("source"))
    ident = "x" * 128
    source.add(JPG, ident=ident)
    (tmp_path / "a.tar").write_bytes(exported(source))
    (folder := tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "xf", "../a.tar"], cwd=folder, check=True)
    assert (folder / "cat" / "origin.jpg").read_bytes() == (folder / ident / "origin.jpg").read_bytes() == JPG
    idents = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [f"./{each}/{name}" for each in idents for name in ("image.json", "origin.jpg", "origin.png")]
    names = ["./lazypix.json", "./cat", *(name for name in files if (folder / name).exists()), "./end.json"]
    for kind in ("gnu", "pax", "ustar"):
        command = ["tar", "cf", f"../{kind}.tar", f"--format={kind}", "--no-recursion", *names]
        subprocess.run(command, cwd=folder, check=True)
        target = opened(kind)
        imported(target, (tmp_path / f"{kind}.tar").read_bytes())
        check_same(source, target, variants=False)


def test_some_images_are_exported(opened: Open) -> None:
    fill(source := opened("source"))
    file = io.BytesIO()
    report = export_library(source, file, idents=["cat", "nobody", "i4"])
    assert (report.total, report.copied, report.failures) == (3, 2, (("nobody", "There is no image nobody"),))
    assert [name for name in members(file.getvalue()) if "/" in name] == [
        "cat/image.json", "cat/origin.jpg", "i4/image.json", "i4/origin.png",
    ]  # fmt: skip
    assert imported(opened(), file.getvalue()).copied == 2


@pytest.mark.parametrize("damage", [b"x", JPG[:-1] + b"x", None])
def test_a_damaged_original_is_not_exported(opened: Open, damage: bytes | None) -> None:
    fill(source := opened("source"))
    path = source.original_path(source.get("cat"))
    assert path is not None
    path.unlink() if damage is None else path.write_bytes(damage)
    file = io.BytesIO()
    report = export_library(source, file)
    assert (report.copied, report.failed, report.failures[0][0]) == (5, 1, "cat")
    assert source.catalog.get("cat").damaged == (damage is not None)
    assert not [name for name in members(file.getvalue()) if name.startswith("cat/")]
    assert imported(opened(), file.getvalue()).copied == 5


def test_other_bytes_are_told_and_the_rest_goes_on(opened: Open) -> None:
    fill(source := opened("source"))
    target = opened()
    target.add(PNG, ident="cat")
    target.add(PNG, ident="i0")  # deleted in the source
    dog = target.add(PNG, ident="dog")
    target.delete("dog")
    report = imported(target, exported(source))
    assert dict(report.failures).keys() == {"cat", "i0", "dog"}
    assert "undelete" in dict(report.failures)["dog"]
    assert (report.copied, report.failed) == (4, 3)
    assert target.original("cat") == target.original("i0") == PNG
    assert target.undelete("dog").sha256 == dog.sha256


def test_an_import_deletes_nothing(opened: Open) -> None:
    source, target = opened("source"), opened()
    for library in (source, target):
        library.add(JPG, ident="cat")
        library.add(JPG, ident="dog")
    source.delete("cat", for_good=True)
    source.delete("dog")
    assert imported(target, exported(source)).skipped == 2
    assert [image.ident for image in target.list()] == ["dog", "cat"]


def test_without_space_it_ends_and_leaves_nothing(opened: Open) -> None:
    fill(source := opened("source"))
    target = opened()

    def full(key: str, source: object) -> None:
        raise StoreFull("No space left")

    create, target.store.create = target.store.create, full  # type: ignore[method-assign]
    with pytest.raises(StoreFull):
        imported(target, exported(source), threads=1)
    all_blobs(target)
    target.store.create = create  # type: ignore[method-assign]
    assert imported(target, exported(source)).failed == 0
    check_same(source, target, variants=False)


CRASH = """
import os, sys
from lazypix import Library
from lazypix.upkeep.archive import import_library

step, folder = sys.argv[1:]
library = Library.open(folder)
die = lambda *_, **__: os._exit(9)
def after(act):
    def done(*arguments, **options):
        act(*arguments, **options)
        die()
    return done
store, catalog = library.store, library.catalog
if step == "received":
    library.engine.inspect = die
if step == "inspected":
    store.create = die
if step == "stored":
    store.create = after(store.create)
if step == "published":
    catalog.adopt = after(catalog.adopt)
if step == "recorded":
    store.put = die
import_library(library, sys.stdin.buffer, trust=step == "recorded", threads=1)
"""


@pytest.mark.parametrize("step", ["received", "inspected", "stored", "published", "recorded"])
def test_an_import_that_was_killed_is_completed(opened: Open, tmp_path: Path, step: str) -> None:
    fill(source := opened("source"))
    target = opened()  # so that nothing is swept
    archive = exported(source, variants=True)
    command = [sys.executable, "-c", CRASH, step, str(tmp_path / "target")]
    done = subprocess.run(command, input=archive, capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 9, done.stderr
    assert imported(target, archive, trust=True).failed == 0
    target.sweep(older_than_s=0)
    check_same(source, target)


def test_an_animation_keeps_its_frames(opened: Open) -> None:
    source, target = opened("source"), opened()
    source.add(p.film([p.RED, p.BLUE]), ident="film")
    imported(target, exported(source))
    assert target.get("film") == source.get("film")
