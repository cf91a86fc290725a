"""`make fleet`: the topology of compose.yaml by processes, its main job, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from tests.fleet.topology import INTERRUPTED
from tests.programs import ROOT, environment_of
from tests.waiting import until

UP_S = 240.0
DOWN_S = 180.0  # two workers, one after the other, of which each may wait for half a minute


pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`make fleet`, without make: the process, and what it has printed."""

    process: subprocess.Popen[bytes]
    log: Path
    folder: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until_it_says(self, words: str) -> None:
        until(
            lambda: words in self.said() or self.process.poll() is not None, UP_S,
            lambda: f"never said {words!r}:\n{self.said()}",
        )  # fmt: skip
        assert words in self.said(), self.said()

    def parts(self) -> list[psutil.Process]:
        """Return all processes that it has started, and that those have started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def left(self) -> list[psutil.Process]:
        """Return all processes that know of its folder, whoever is their parent now."""
        return [process for process in psutil.process_iter() if self._is_below(process)]

    def _is_below(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("TMPDIR") == str(self.folder)
        except psutil.Error:
            return False


@contextmanager
def begun(folder: Path, *arguments: str) -> Iterator[Run]:
    """Run it in a folder of its own; whatever happens, nothing of it is left."""
    log, temporary = folder / "fleet.log", Path(tempfile.mkdtemp(prefix="lazypix-topology-"))
    temporary.chmod(0o711)  # PostgreSQL's user must get to its folder below, which it could not below pytest's
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.topology", *arguments],
            cwd=ROOT, env=environment_of(TMPDIR=str(temporary)), stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield Run(process=process, log=log, folder=temporary)
    finally:
        if process.poll() is None:
            for part in psutil.Process(process.pid).children(recursive=True):
                part.kill()
            process.kill()
        process.wait(30)
        shutil.rmtree(temporary)


def test_the_fleet_does_its_main_job_and_leaves_nothing_after_ctrl_c(tmp_path: Path) -> None:
    with begun(tmp_path, "--keep") as run:
        run.until_it_says("It stays up until Ctrl-C.")
        for words in (
            "made by Celery workers",
            "206 for a part",
            "the replica has the original",
            "both servers answer 404",
        ):
            assert words in run.said()
        address = re.search(r"^nginx (http://\S+),", run.said(), re.MULTILINE)
        assert address
        assert httpx.get(f"{address[1].rstrip('/')}/readyz", timeout=20).status_code == 200
        parts = run.parts()
        names = " ".join(" ".join(part.cmdline()) for part in parts)
        for name in ("postgres", "redis-server", "memcached", "weed", "beam", "nginx", "lazypix serve", "beat"):
            assert name in names
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.process.wait(DOWN_S) == 0, run.said()
        assert not psutil.wait_procs(parts, timeout=10)[1]
        assert "stopped everything" in run.said()
        assert list(run.folder.iterdir()) == []


@pytest.mark.parametrize("moment", ["starting", "PostgreSQL", "Redis"])
def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path, moment: str) -> None:
    with begun(tmp_path) as run:
        parts = begun_parts(run, moment)
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to all of the group, and not to Python alone
        assert_it_is_stopped(run, parts)


def test_ended_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    with begun(tmp_path) as run:
        parts = begun_parts(run, "Redis")
        run.process.terminate()
        assert_it_is_stopped(run, parts)


def begun_parts(run: Run, moment: str) -> list[psutil.Process]:
    """Wait until this was said and something runs, at first the program that makes PostgreSQL's cluster."""
    run.until_it_says(moment)
    until(lambda: bool(run.parts()))
    return run.parts()


def assert_it_is_stopped(run: Run, parts: list[psutil.Process]) -> None:
    assert run.process.wait(DOWN_S) == INTERRUPTED, run.said()
    assert not psutil.wait_procs(parts, timeout=10)[1]
    assert not run.left()
    assert list(run.folder.iterdir()) == []
    assert run.said().count("stopping after this step") == 1
    assert "stopped everything" in run.said()
    assert "Traceback" not in run.said()
