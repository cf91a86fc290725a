"""The example project, run by Django's own server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.programs import ROOT, Program, answers, running

PROJECT = ROOT / "examples" / "django"
PASSWORD = "of-the-tests"
# One process for several commands: most of the time of each goes into its beginning.
COMMANDS = """
import sys
sys.path.insert(0, {project!r})
from os import environ
environ["DJANGO_SETTINGS_MODULE"] = "gallery.settings"
from django.core.management import execute_from_command_line
for command in {commands!r}:
    execute_from_command_line(["manage.py", *command.split()])
"""


def code(*commands: str) -> str:
    """Return a program that carries out commands of `manage.py`, one after the other."""
    return COMMANDS.format(project=str(PROJECT), commands=commands)


def manage(folder: Path, *commands: str) -> str:
    """Run commands of the example's, and return what they wrote."""
    done = run(folder, code(*commands))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the example's environment."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment(folder: Path, **variables: str) -> dict[str, str]:
    own = {"GALLERY_FOLDER": str(folder), "GALLERY_DEBUG": "no", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own, **variables}


@contextmanager
def gallery(folder: Path, *, pictures: int, **variables: str) -> Iterator[Program]:
    """Run the gallery with some pictures, and a user `admin`."""
    port = free_port()
    commands = (
        f"prepare --pictures {pictures} --password {PASSWORD}",
        f"runserver --noreload --insecure 127.0.0.1:{port}",
    )
    variables_of = [f"{name}={value}" for name, value in environment(folder, **variables).items()]
    command = ["env", *variables_of, sys.executable, "-c", code(*commands)]
    with running(command, port, answers("/"), log=folder / "gallery.log") as program:
        yield program
    assert "Traceback" not in (folder / "gallery.log").read_text(), (folder / "gallery.log").read_text()
