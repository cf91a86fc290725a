"""Celery's ways of running: pools, beat without a server, and what it says when it is not set up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import programs
from tests.engine.pictures import jpg, noise
from tests.fleet.workers import celery
from tests.programs import Program
from tests.server.running import clean_environment
from tests.waiting import until

from lazypix import Library
from lazypix.engine.idle import IdleEngine
from lazypix.orders import warm_jobs
from lazypix.transform import Transform

PICTURE = jpg(noise(400, 300))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with programs.redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_beat_has_workers_of_any_pool_told_of_what_nobody_was_told_of(
    redis: Program, tmp_path: Path, pool: str
) -> None:
    settings = {"broker": f"redis://{redis.address}/{len(pool)}", "job_resend_s": "1", "data": str(tmp_path / "data")}
    with Library.open(tmp_path / "data") as library:
        library.add(PICTURE, ident="cat")
        library.catalog.jobs.add(warm_jobs("cat", [Transform.parse(f"{width}x") for width in (50, 60, 70)]))
    with (
        celery(tmp_path, "worker", "-c", "2", "-P", pool, **settings),
        celery(tmp_path, "beat", ready="beat: Starting", **settings),
        Library.open(tmp_path / "data", engine=IdleEngine(), tidies=False) as library,
    ):
        until(lambda: "warm" not in library.catalog.jobs.count(), 60)
        assert len(library.variants("cat")) == 3
        until(lambda: set(library.catalog.jobs.count()) == {"sweep", "scrub"})
    assert not list(tmp_path.glob("celerybeat*")), "beat needs no file"


def test_a_worker_that_is_not_set_up_says_what_is_missing(tmp_path: Path) -> None:
    for settings in ({}, {"jobs": "celery"}, {"jobs": "celery", "broker": "sqs://x"}):
        command = [sys.executable, "-m", "celery", "-A", "lazypix.celery", "worker"]
        environment = clean_environment(settings)
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=180, check=False)
        assert done.returncode != 0
        said = done.stderr.decode()
        assert "broker" in said
        assert "Traceback" not in said
