"""A copy that was killed between two steps leaves nothing half done, and the next one completes it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.upkeep.libraries import JPG, check_same, fill
from tests.waiting import WAIT_S

from lazypix import Library
from lazypix.engine.idle import IdleEngine
from lazypix.engine.threads import ThreadEngine
from lazypix.upkeep.copying import copy_library

CRASH = """
import os, sys
from lazypix import Library
from lazypix.catalog.variant_rows import VariantRows
from lazypix.engine.idle import IdleEngine
from lazypix.stores.local import LocalStore
from lazypix.upkeep.copying import copy_library

step, source, target = sys.argv[1:]
source = Library.open(source, engine=IdleEngine())
target = Library.open(target, engine=IdleEngine())
die = lambda *_, **__: os._exit(9)
def after(act):
    def done(*arguments, **options):
        act(*arguments, **options)
        die()
    return done
store, catalog = target.store, target.catalog
if step == "received":
    catalog.claim = die
if step == "claimed":
    store.create = die
if step == "stored":
    store.create = after(store.create)
if step == "published":
    catalog.publish = after(catalog.publish)
if step == "recorded":
    store.put = die
if step == "variant stored":
    store.put = after(store.put)
if step == "adopting":
    catalog.adopt = lambda image, *, state: (catalog.claim(image), die())
if step == "deleting":
    store.delete_prefix = die
if step == "deleted":
    catalog.end_delete = die
copy_library(source, target, threads=1)
"""
STEPS = ["received", "claimed", "stored", "published", "recorded", "variant stored", "adopting"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another process"])
@pytest.mark.parametrize("step", [*STEPS, "deleting", "deleted"])
def test_a_copy_that_was_killed_is_completed(tmp_path: Path, step: str, alone: bool) -> None:
    with Library.open(tmp_path / "source", engine=ThreadEngine(1)) as source, ExitStack() as stack:
        fill(source)
        target = Library.open(tmp_path / "target", engine=IdleEngine())
        if step in ("deleting", "deleted"):
            copy_library(source, target)
            source.delete("cat")
        if alone:
            target.close()  # so that the next to open it sweeps what the killed one has left
        else:
            stack.enter_context(target)
        command = [sys.executable, "-c", CRASH, step, str(tmp_path / "source"), str(tmp_path / "target")]
        done = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)
        assert done.returncode == 9, done.stderr
        if alone:
            target = stack.enter_context(Library.open(tmp_path / "target", engine=IdleEngine()))
        for image in target.list():
            assert target.original(image.ident) == source.original(image.ident)  # nothing half done is seen
        report = copy_library(source, target)
        assert report.failed == 0
        target.sweep(older_than_s=0)
        check_same(source, target)


@pytest.mark.parametrize("step", ["claimed", "stored"])
def test_a_claim_of_a_killed_copy_goes_when_the_source_has_deleted_the_image(tmp_path: Path, step: str) -> None:
    with (
        Library.open(tmp_path / "source", engine=ThreadEngine(1)) as source,
        Library.open(tmp_path / "target", engine=IdleEngine()) as target,
    ):
        source.add(JPG, ident="cat")
        command = [sys.executable, "-c", CRASH, step, str(tmp_path / "source"), str(tmp_path / "target")]
        assert subprocess.run(command, timeout=WAIT_S, check=False).returncode == 9
        assert target.catalog.states(["cat"]) == {"cat": "pending"}
        source.delete("cat")
        assert copy_library(source, target).deleted == 1
        assert list(target.store.list()) == []
        check_same(source, target)
