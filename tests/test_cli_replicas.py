"""`lazypix replicas` as an operator uses it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.test_cli import Done, lazypix


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A library with two images, and a replica that has nothing yet."""
    (tmp_path / "lazypix.toml").write_text(
        f'[[replicas]]\nname = "mirror"\nstore = "file://{tmp_path}/mirror"\nlayout = "imageserver"\n'
        f'[[replicas]]\nname = "other"\nstore = "file://{tmp_path}/other"\n'
    )
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.jpg").write_bytes(jpg(quadrants(90, 60)))
        assert lazypix(tmp_path, "add", f"{name}.jpg", "--ident", name).returncode == 0
    return tmp_path


def forget_jobs(desk: Path) -> None:
    """Lose the jobs, as a catalog that was restored from a backup does."""
    with closing(sqlite3.connect(desk / "data" / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("DELETE FROM jobs")


def kinds(done: Done) -> list[tuple[str, str, str]]:
    told = json.loads(done.stdout)
    return sorted((line["replica"], line["kind"], line.get("key", "")) for line in told)


def test_a_replica_is_looked_at_repaired_and_looked_at_again(desk: Path) -> None:
    waiting = lazypix(desk, "replicas", "status", "mirror")
    assert waiting.returncode == 0, waiting.stderr
    assert waiting.stdout.decode().splitlines() == [
        "mirror: image/cat.jpg: waiting (a job will see to it)",
        "mirror: image/dog.jpg: waiting (a job will see to it)",
        "mirror: 2 waiting; jobs: 2 waiting",
    ]
    forget_jobs(desk)
    missing = lazypix(desk, "replicas", "status", "--json")
    assert missing.returncode == 1
    assert b"4 blobs are not as they should be" in missing.stderr
    assert kinds(missing) == [
        ("mirror", "missing", "image/cat.jpg"), ("mirror", "missing", "image/dog.jpg"), ("mirror", "sum", ""),
        ("other", "missing", "cat/origin.jpg"), ("other", "missing", "dog/origin.jpg"), ("other", "sum", ""),
    ]  # fmt: skip
    repaired = lazypix(desk, "replicas", "repair", "mirror")
    assert (repaired.returncode, repaired.stdout.decode().splitlines()[-1]) == (0, "mirror: mended 2 blobs")
    assert (desk / "mirror" / "image" / "cat.jpg").read_bytes() == (desk / "cat.jpg").read_bytes()
    whole = lazypix(desk, "replicas", "status", "mirror", "--contents")
    assert (whole.returncode, whole.stdout) == (0, b"mirror: all is there; jobs: none\n")


def test_a_repair_that_does_not_do_everything_says_so(desk: Path) -> None:
    forget_jobs(desk)
    (desk / "data" / "images" / "cat" / "origin.jpg").unlink()
    done = lazypix(desk, "replicas", "repair", "mirror", "--json")
    assert done.returncode == 1
    assert kinds(done) == [("mirror", "missing", "image/dog.jpg")]
    assert b"image/cat.jpg" in done.stderr
    assert b"1 blobs could not be mended" in done.stderr


def test_an_unknown_replica_is_named_with_those_that_there_are(desk: Path) -> None:
    done = lazypix(desk, "replicas", "status", "mirorr")
    assert done.returncode == 2
    assert b"There is no replica 'mirorr'; accepted: mirror, other" in done.stderr.replace(b"\n", b" ")
    without = lazypix(desk, "replicas", "status", config="/dev/null")
    assert without.returncode == 2
    assert b"There are no replicas" in without.stderr
