"""A copy that was killed between two steps leaves nothing half done, and the next one completes it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.upkeep.libraries import JPG, check_same, fill
from tests.waiting import WAIT_S

from lazypix import Image, Library
from lazypix.engine.idle import IdleEngine
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import StoreFailed
from lazypix.stores.local import LocalStore
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
    store.create = die
if step == "stored":
    store.create = after(store.create)
if step == "published":
    catalog.adopt = after(catalog.adopt)
if step == "recorded":
    store.put = die
if step == "variant stored":
    store.put = after(store.put)
if step == "deleting":
    store.delete_prefix = die
if step == "deleted":
    catalog.end_delete = die
copy_library(source, target, threads=1)
"""
STEPS = ["received", "stored", "published", "recorded", "variant stored"]


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


def test_what_a_killed_copy_stored_goes_when_the_source_has_deleted_the_image(tmp_path: Path) -> None:
    with (
        Library.open(tmp_path / "source", engine=ThreadEngine(1)) as source,
        Library.open(tmp_path / "target", engine=IdleEngine()) as target,
    ):
        source.add(JPG, ident="cat")
        command = [sys.executable, "-c", CRASH, "stored", str(tmp_path / "source"), str(tmp_path / "target")]
        assert subprocess.run(command, timeout=WAIT_S, check=False).returncode == 9
        assert target.catalog.states(["cat"]) == {}, "it is never a claim that somebody could undo"
        target.sweep(older_than_s=0)
        assert [blob.key for blob in target.store.list()] == ["cat/origin.jpg"]
        source.delete("cat")
        assert copy_library(source, target).deleted == 1
        assert list(target.store.list()) == []
        check_same(source, target)


def test_two_catalogs_of_one_store_take_nothing_from_each_other(tmp_path: Path) -> None:
    """Moving from one catalog to another; the copy is cut short, and what is left of it is swept."""
    with Library.open(tmp_path / "source", engine=ThreadEngine(1)) as source:
        fill(source)
        store = LocalStore(tmp_path / "source" / "images")
        with Library.open(tmp_path / "target", store=store, engine=IdleEngine()) as target:
            adopt, failed = target.catalog.adopt, []

            def fail_once(image: Image, **options: Any) -> bool:
                if image.ident not in failed:
                    failed.append(image.ident)
                    raise StoreFailed("The catalog is not available")
                return adopt(image, **options)

            target.catalog.adopt = fail_once  # type: ignore[method-assign]
            with suppress(StoreFailed):
                copy_library(source, target)
            target.sweep(older_than_s=0)
            for image in source.list():
                assert hashlib.sha256(source.original(image.ident)).hexdigest() == image.sha256
            while copy_library(source, target).failed:
                target.sweep(older_than_s=0)
            assert {image.ident for image in target.list()} == {image.ident for image in source.list()}
