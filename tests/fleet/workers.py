"""Celery workers for tests: `celery -A lazypix.celery worker` in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.server.running import clean_environment, members
from tests.waiting import until

STOP_S = 90.0
"""A pool process may wait for 30 seconds until what it did last is noticed, which it never is when the signal came in
between. Source: billiard, pool.py, Worker._ensure_messages_consumed."""
START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A running worker; its pool's processes are in its group."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """SIGKILL to all of its processes, as a machine that loses power."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        until(lambda: not members(self.process.pid))

    def kill_pool(self) -> None:
        """SIGKILL to the forked processes alone, as the kernel does when memory is short."""
        for pid, command in members(self.process.pid).items():
            if pid != self.process.pid and "celery" in command:
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        try:
            self.process.terminate()
            assert self.process.wait(STOP_S) == 0, self.log.read_text()
            until(lambda: not members(self.process.pid), otherwise=lambda: f"left: {members(self.process.pid)}")
        finally:
            self.kill()


@contextmanager
def celery(
    folder: Path, *arguments: str, ready: str = " ready.", application: str = "lazypix.celery", **settings: str
) -> Iterator[Worker]:
    """Run Celery with lazypix' application, or another one, until the end of the block."""
    log = folder / f"celery-{len(list(folder.glob('celery-*.log')))}.log"
    command = [sys.executable, "-m", "celery", "-A", application, *arguments, "-l", "info"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=folder,
            env=clean_environment({"renderers": "1", "jobs": "celery", **settings}),
        )  # fmt: skip
    worker = Worker(process=process, log=log)
    try:
        until(
            lambda: process.poll() is not None or ready in log.read_text(),
            START_S,
            lambda: f"Celery did not start:\n{log.read_text()}",
        )
        if process.poll() is not None:
            pytest.fail(f"Celery ended:\n{log.read_text()}")
        yield worker
        if process.poll() is None:
            worker.stop()
        assert "raised unexpected" not in log.read_text(), log.read_text()  # by a task of ours
    finally:
        worker.kill()
