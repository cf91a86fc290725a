"""The example project, run by Django's own server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs import ROOT, Program, answers, free_ports, running

PROJECT = ROOT / "examples" / "django"
PASSWORD = "of the tests"


def manage(folder: Path, *arguments: str, **variables: str) -> str:
    """Run a command of the example's, and return what it wrote."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), *arguments], env=environment(folder, **variables),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {
        **os.environ,
        "GALLERY_FOLDER": str(folder),
        "GALLERY_DEBUG": "no",
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }


@contextmanager
def gallery(folder: Path, *, pictures: int, **variables: str) -> Iterator[Program]:
    """Run the gallery with some pictures, and a user `admin`."""
    manage(folder, "prepare", "--pictures", str(pictures), "--password", PASSWORD)
    (port,) = free_ports(1)
    command = [
        "env", *(f"{name}={value}" for name, value in environment(folder, **variables).items()),
        sys.executable, str(PROJECT / "manage.py"), "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}",
    ]  # fmt: skip
    with running(command, port, answers("/"), log=folder / "gallery.log") as program:
        yield program
    assert "Traceback" not in (folder / "gallery.log").read_text(), (folder / "gallery.log").read_text()
