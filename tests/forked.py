"""Commands in processes of their own that start fast: forked off one process that has imported what they need.

Each is a process as any other, which can be killed; the imports of Python modules are not done anew, functions given to
`atexit` are not called, and the kernel tells the command and environment of the process it was forked off. Not for what
is about these, nor about terminals.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

Streams = tuple[Path, Path, Path]
"""Where standard input comes from, and where output and errors go."""

_PRELOADED = (
    # None that starts threads (libvips), nor one that looks at the terminal when it is imported (rich's consoles).
    "alembic.command", "lazypix.catalog.schema", "lazypix.client.remote", "lazypix.composition",
    "lazypix.server.run", "psycopg", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "typer",
)  # fmt: skip

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(list(_PRELOADED))


class Forked:
    """A command that runs, as `subprocess.Popen` shows one."""

    def __init__(self, module: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Streams):
        self.args = [sys.executable, "-m", module, *arguments]
        self._process = _forking.Process(target=_run, args=(module, list(arguments), cwd, dict(env), streams))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_module(module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> Forked:
    """Start `python -m module arguments` in a process group of its own; what it writes is appended to the log."""
    return Forked(module, arguments, cwd, env, (Path(os.devnull), log, log))


def run_module(
    module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float = 180
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m module arguments`; return how it ended and what it wrote, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it took longer; it was killed.
    """
    with tempfile.TemporaryDirectory(prefix="lazypix-command-") as folder:
        out, err = Path(folder) / "stdout", Path(folder) / "stderr"
        command = Forked(module, arguments, cwd, env, (Path(os.devnull), out, err))
        try:
            code = command.wait(timeout_s)
        finally:
            command.kill()
        return subprocess.CompletedProcess(command.args, code, out.read_bytes(), err.read_bytes())


def _run(module: str, arguments: list[str], cwd: Path, env: dict[str, str], streams: Streams) -> None:
    """Become the command; runs in the forked process."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
