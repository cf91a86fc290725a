"""`kill -9` before and after every single step of uploads, variants and deletions: nothing is lost, nothing is left."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.forked import run_module
from tests.held import counted
from tests.held import told as told_by_keys
from tests.programs import ACCESS_KEY, ROOT, SECRET_KEY, Program, environment_of

from lazypix import Library
from lazypix.catalog import Catalog
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import UnknownImage
from lazypix.stores.addresses import open_store
from lazypix.upkeep.cleaning import collect_garbage
from lazypix.upkeep.verifying import verify

PICTURES = {"a": jpg(quadrants(90, 60)), "b": jpg(quadrants(60, 90)), "c": jpg(quadrants(64, 64))}
FEWEST_STEPS = 20
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where one library lies."""

    pictures: Path
    folder: Path
    store: str
    catalog: str

    def run(self, last: int, program: str = "killed", source: Path | None = None) -> tuple[int, list[str]]:
        """Work there until a step, on pictures or another source; return the exit code and what was told."""
        source = source or self.pictures
        arguments = [str(source), str(self.folder), self.store, self.catalog, str(last)]
        env = environment_of(TEST_ACCESS_KEY=ACCESS_KEY, TEST_SECRET_KEY=SECRET_KEY)
        done = run_module(f"tests.faults.{program}", arguments, cwd=ROOT, env=env, timeout_s=120)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode, done.stdout.decode().splitlines()

    def open(self) -> Library:
        """Open it as the next process does, which finds itself alone and sweeps."""
        secrets = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        store = open_store(self.store, secrets=secrets if self.store.startswith("s3:") else {})
        return Library.open(self.folder, catalog=self.catalog, store=store, engine=ThreadEngine(1), sidecars=True)


@pytest.fixture(params=["folder and SQLite", "S3 and PostgreSQL"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """A function that makes an empty library; its catalog is a copy, because making one anew takes long."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, picture in PICTURES.items():
        (pictures / f"{name}.jpg").write_bytes(picture)
    if request.param == "folder and SQLite":
        template = tmp_path / "catalog.sqlite"
        with closing(Catalog.sqlite(template)) as catalog:
            catalog.keys.make("key", ["upload"])

        def local() -> Place:
            folder = tmp_path / uuid.uuid4().hex
            folder.mkdir()
            shutil.copy(template, folder)
            return Place(pictures, folder, f"file://{folder}/images", f"sqlite:///{folder}/catalog.sqlite")

        return local
    server: Program = request.getfixturevalue("seaweedfs")
    new_database: Callable[..., str] = request.getfixturevalue("new_database")
    made = new_database()
    with closing(Catalog.open(made)) as catalog:
        catalog.keys.make("key", ["upload"])

    def remote() -> Place:
        name = uuid.uuid4().hex
        store = f"s3://bucket/{name}?endpoint=http://{server.address}&region=us-east-1"
        return Place(pictures, tmp_path / name, store, new_database(made))

    return remote


def check(place: Place, last: int, told: list[str]) -> str | None:
    """Return what is wrong after a kill, or None."""
    with place.open() as library:
        library.sweep(older_than_s=0)  # where the catalog is shared, a machine that starts goes by the age
        # A variant's row is written first: it may stand there without a blob, which is made when it is asked for.
        found = [problem for problem in verify(library) if problem.kind != "variant missing"]
        problems = [f"{problem.kind}: {problem.key}" for problem in found]
        collect_garbage(library, remove=True, older_than_s=0)
        problems += [f"not collected: {problem.key}" for problem in verify(library)]
        present = {image.ident for image in library.list()}
        problems += [f"{ident} has other bytes" for ident in present if library.original(ident) != PICTURES[ident]]
        acknowledged = {line.removeprefix("added ") for line in told if line.startswith("added ")}
        deleted = {line.removeprefix("deleted ") for line in told if line.startswith("deleted ")}
        begun = {"a"} if "added b" in told else set()  # its deletion may have been decided
        if lost := acknowledged - present - deleted - begun:
            problems.append(f"acknowledged and lost: {lost}")
        if back := deleted & present:
            problems.append(f"deleted and back: {back}")
        if "added a" not in told and "a" not in present:
            library.add(PICTURES["a"], ident="a")  # what was not acknowledged may be sent again
        if told_by_keys(library.catalog) != counted(library.catalog):
            problems.append(f"counted {counted(library.catalog)}, told {told_by_keys(library.catalog)}")
        if library.catalog.unfinished():
            problems.append(f"unfinished: {library.catalog.unfinished()}")
    return f"step {last} ({told[-1] if told else 'at once'}): {problems}" if problems else None


def test_whatever_step_it_dies_at_the_library_is_whole(new_place: Callable[[], Place]) -> None:
    code, told = new_place().run(0)
    assert code == 0
    steps = int(told[-1].removeprefix("steps "))
    assert steps > FEWEST_STEPS

    def die(last: int) -> str | None:
        place = new_place()
        code, told = place.run(last)
        if code == 0:  # threads: a run may take a step less
            assert last > steps - 3
            return None
        return check(place, last, told)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [found for found in pool.map(die, range(1, steps + 1)) if found is not None]
    assert wrong == []


def test_a_deleted_image_stays_deleted_for_who_comes_later(new_place: Callable[[], Place]) -> None:
    place = new_place()
    assert place.run(0)[0] == 0
    with place.open() as library:
        with pytest.raises(UnknownImage):
            library.get("a")
        assert {image.ident for image in library.list()} == {"b", "c"}
        assert list(verify(library)) == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A library of two images, one with a variant, and one that is deleted."""
    folder = tmp_path / "source"
    with Library.open(folder, engine=ThreadEngine(1)) as library:
        for ident, picture in PICTURES.items():
            library.add(picture, ident=ident, filename=f"{ident}.jpg", metadata={"name": ident})
        library.variant("b", "30x")
        library.delete("a")
    return folder


def check_copy(place: Place, source: Path, last: int) -> str | None:
    """Return what is wrong after a copy was killed, and the next one was not, or None."""
    with place.open() as library:
        library.sweep(older_than_s=0)
        # A blob that came before its row is taken in by the next run.
        wrong = [p.key for p in verify(library) if p.kind not in ("variant missing", "unknown image")]
    code, _ = place.run(0, "copied", source)
    with place.open() as library, Library.open(source, engine=ThreadEngine(1)) as old:
        wrong += [problem.key for problem in verify(library)]
        if {image.ident: image for image in library.list()} != {image.ident: image for image in old.list()}:
            wrong.append("not the same images")
        if [variant.sha256 for variant in library.variants("b")] != [v.sha256 for v in old.variants("b")]:
            wrong.append("not the same variants")
        if library.catalog.states(["a"]).get("a") not in ("deleting", "deleted", "gone"):
            wrong.append("the deleted ident is free")
    return f"step {last}: {wrong}" if wrong or code else None


def test_whatever_step_a_copy_dies_at_the_next_one_completes_it(new_place: Callable[[], Place], source: Path) -> None:
    code, told = new_place().run(0, "copied", source)
    assert code == 0
    steps = int(told[-1].removeprefix("steps "))
    assert steps > 10

    def die(last: int) -> str | None:
        place = new_place()
        place.run(last, "copied", source)
        return check_copy(place, source, last)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert [found for found in pool.map(die, range(1, steps + 1)) if found is not None] == []
