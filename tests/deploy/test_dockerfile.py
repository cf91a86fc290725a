"""The Dockerfile cannot be run here: it is linted, and what it names is held against the code."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import tomllib

import pytest
from tests.deploy.files import DOCKERFILE, KEY, check_command, image_environment, instructions, settings_of
from tests.programs import ROOT, find

from lazypix.errors import SettingsError
from lazypix.settings import load

LINES = instructions(DOCKERFILE.read_text())


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [find("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    copied = [
        word for line in LINES if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(allowed)
    for name in copied:
        assert (ROOT / name).exists(), name
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for rubbish in ("src/lazypix/__pycache__", "src/lazypix/x.pyc"):
        assert any(fnmatch.fnmatch(rubbish, line) for line in ignored if line.startswith("**")), rubbish


def test_the_wheel_is_built_from_what_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {
        project["project"]["readme"],
        *project["project"]["license-files"],
        *(p.split("/")[0] for p in packages),
    }
    copied = {word for line in LINES if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert needed <= copied


def test_it_runs_as_a_user_without_a_name_to_look_up_and_without_a_shell() -> None:
    user = [line.split()[1] for line in LINES if line.startswith("USER ")]
    assert user == ["10001:10001"]
    for name in ("CMD", "HEALTHCHECK"):
        (line,) = [line for line in LINES if line.startswith(name)]
        words = json.loads(line[line.index("[") :])
        assert all(isinstance(word, str) for word in words)
    assert not [line for line in LINES if line.startswith("ENTRYPOINT")]
    assert "STOPSIGNAL SIGTERM" in LINES


def test_its_command_exists_and_its_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = [line for line in LINES if line.startswith("CMD ")]
    check_command(json.loads(line.removeprefix("CMD ")))
    environment = settings_of(image_environment())
    settings = load({}, environment | {"LAZYPIX_API_KEYS": KEY, "LAZYPIX_URLS": "open"})
    assert f"EXPOSE {settings.port}" in LINES
    assert f'VOLUME ["{settings.data}"]' in LINES
    with pytest.raises(SettingsError, match="api_keys and urls"):
        load({}, environment)  # a container without keys does not start


OF_APPLICATIONS = ("django", "fastapi", "flask", "wheezy")
"""Extras for who has lazypix in an application: a server or worker needs none of them."""


def test_the_lock_holds_all_that_a_fleet_needs_in_the_versions_that_are_tested() -> None:
    fleet, tested = (pins((ROOT / "requirements" / f"{name}.txt").read_text()) for name in ("fleet", "dev"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, needs in extras.items():
        for need in needs if name not in OF_APPLICATIONS else ():
            assert re.match(r"[a-z0-9-]+", need)[0] in fleet, name  # type: ignore[index]
    assert "hatchling" in fleet
    assert fleet == {name: version for name, version in tested.items() if name in fleet}


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
