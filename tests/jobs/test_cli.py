"""`lazypix jobs`, and what a killed process leaves to the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, noise
from tests.server.running import clean_environment, kill, members, running
from tests.waiting import WAIT_S, until
from typer.testing import CliRunner

from lazypix import Library
from lazypix.catalog import Catalog
from lazypix.catalog.jobs import NewJob
from lazypix.cli.main import app
from lazypix.engine.idle import IdleEngine
from lazypix.orders import warm_jobs
from lazypix.transform import Transform

PICTURE = jpg(noise(400, 300))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library with a dead job, one that is to be done later and one that waits."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LAZYPIX_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "data"
    folder.mkdir()
    with closing(Catalog.sqlite(folder / "catalog.sqlite")) as catalog:
        catalog.jobs.add([NewJob(kind="callback", ident="cat")])
        dead = catalog.jobs.take(["callback"], lease_s=60)
        assert dead is not None
        catalog.jobs.failed(dead, "no [bold]answer[/]", again_in_s=None)
        catalog.jobs.add([NewJob(kind="warm", ident="dog", due_in_s=3600), NewJob(kind="warm", ident="dog")])
    return folder


def lazypix(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["jobs", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_jobs_are_listed_and_counted(data: Path) -> None:
    listed = json.loads(lazypix("list", "--json"))
    assert {(job["kind"], job["state"], job["ident"]) for job in listed} == {
        ("callback", "dead", "cat"),
        ("warm", "later", "dog"),
        ("warm", "waiting", "dog"),
    }
    assert [job["error"] for job in listed if job["state"] == "dead"] == ["no [bold]answer[/]"]
    assert len(json.loads(lazypix("list", "--json", "--kind", "warm", "--state", "later", "--ident", "dog"))) == 1
    assert json.loads(lazypix("count", "--json")) == {"callback": {"dead": 1}, "warm": {"later": 1, "waiting": 1}}
    assert "callback" in lazypix("list")
    assert "callback" in lazypix("count")


def test_the_dead_are_retried_and_jobs_dropped(data: Path) -> None:
    dead = json.loads(lazypix("list", "--json", "--state", "dead"))[0]["id"]
    assert json.loads(lazypix("retry", dead, "--json")) == {"retried": 1}
    assert "1 of these jobs" in lazypix("retry", dead, code=1)
    assert json.loads(lazypix("drop", "--state", "later", "--json")) == {"dropped": 1}
    assert "dropped 2 jobs" in lazypix("drop", "--all")
    assert json.loads(lazypix("count", "--json")) == {}


def test_what_is_not_said_is_asked_for(data: Path) -> None:
    assert "Say which jobs" in lazypix("retry", code=2)
    assert "Say which jobs" in lazypix("drop", code=2)
    assert "accepted: waiting, later, held, running, dead" in lazypix("list", "--state", "done", code=2)


@contextmanager
def run(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lazypix jobs run` in a process group of its own."""
    command = [sys.executable, "-m", "lazypix", "jobs", "run", "--data", str(folder), *arguments]
    environment = clean_environment({"renderers": "1", "job_lease_s": "6", **settings})
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"carrying out jobs\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        until(lambda: not members(process.pid))
        process.communicate(timeout=30)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "data") as adding:
        adding.add(PICTURE, ident="cat")
    with Library.open(tmp_path / "data", engine=IdleEngine(), tidies=False) as opened:
        yield opened


def test_a_process_of_its_own_carries_out_what_waits_and_ends(library: Library, tmp_path: Path) -> None:
    library.catalog.jobs.add(warm_jobs("cat", [Transform.parse(f"{width}x") for width in (50, 60, 70)]))
    with run(tmp_path / "data", "--until-done") as process:
        assert process.wait(WAIT_S) == 0
    assert len(library.variants("cat")) == 3


def test_a_job_of_a_killed_process_is_carried_out_by_another(library: Library, tmp_path: Path) -> None:
    jobs, size = library.catalog.jobs, Transform.parse("50x").as_format("jpg")
    with run(tmp_path / "data") as process:
        with library.locks.hold(library.shelf.key("cat", size), patience_s=0):
            jobs.add(warm_jobs("cat", [size]))
            until(lambda: jobs.count().get("warm") == {"running": 1}, WAIT_S)
            os.killpg(process.pid, signal.SIGKILL)
        assert jobs.count()["warm"] == {"running": 1}
    with run(tmp_path / "data") as process:
        until(lambda: "warm" not in jobs.count(), WAIT_S)
        process.terminate()
        assert process.wait(WAIT_S) == 0
    assert len(library.variants("cat")) == 1


def test_sizes_named_at_an_upload_outlive_the_server(tmp_path: Path) -> None:
    keys = "a-key-of-sixteen-characters,another-key-of-sixteen"
    with running(tmp_path / "data", jobs="none", api_keys=keys) as server, server.client() as client:
        for number, key in enumerate(keys.split(",")):
            headers = {"authorization": f"Bearer {key}"}
            fields = {"sizes": "50x30,60x30", "ident": f"image{number}"}
            answer = client.post("/upload", files={"image": ("x.jpg", PICTURE)}, data=fields, headers=headers)
            assert answer.status_code == 201
        kill(server)
    with Library.open(tmp_path / "data", engine=IdleEngine(), tidies=False) as library:
        jobs = library.catalog.jobs
        callers = {job.caller for job in jobs.find(kind="warm")}
        assert len(callers) == 2, "each key has its turn"
        assert not any(caller in keys or not caller for caller in callers)
        with running(tmp_path / "data"):
            until(lambda: "warm" not in jobs.count(), WAIT_S)
        assert [len(library.variants(f"image{number}")) for number in range(2)] == [2, 2]
