"""The files of deployment, read; and what they are checked against."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tests.programs import ROOT
from typer.main import get_command

from lazypix.cli.main import app

DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "compose.yaml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
KEY = "a-key-of-enough-characters"


def documents(path: Path) -> list[Any]:
    """Return the documents of a YAML file, with its anchors and merges resolved."""
    return list(YAML(typ="safe", pure=True).load_all(path))


def image_environment() -> dict[str, str]:
    """Return what the image sets for its processes."""
    found: dict[str, str] = {}
    for instruction in instructions(DOCKERFILE.read_text()):
        if instruction.startswith("ENV "):
            found |= dict(re.findall(r"(\w+)=(\S+)", instruction))
    return found


def instructions(dockerfile: str) -> list[str]:
    """Return the instructions of a Dockerfile, each in one line."""
    kept = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    return [line for line in kept.replace("\\\n", " ").splitlines() if line.strip()]


def settings_of(*environments: Mapping[str, str]) -> dict[str, str]:
    """Return what of the environments lazypix would read."""
    merged = {name: value for environment in environments for name, value in environment.items()}
    return {name: str(value) for name, value in merged.items() if name.startswith("LAZYPIX_")}


def check_command(words: list[str]) -> None:
    """Fail if a command line of lazypix or Celery is not one that exists."""
    if words[0] == "lazypix":
        commands, (name, *options) = get_command(app).commands, words[1:]  # type: ignore[attr-defined]
    else:
        assert words[:3] == ["celery", "-A", "lazypix.celery"], words
        commands, (name, *options) = import_module("celery.bin.celery").celery.commands, words[3:]
        assert find_spec(words[2]), words
    command = commands[name]
    with command.context_class(command, info_name=name) as context:
        _, rest, _ = command.make_parser(context).parse_args(list(options))
    assert rest == [], words


def shell_commands(script: str) -> Iterator[list[str]]:
    """Yield the command lines of lazypix and Celery in a line of shell, up to what the shell itself reads."""
    for found in re.finditer(r"\b(lazypix|celery)( [^>&|;]+)", script):
        yield (found[1] + found[2].replace("$$", "$")).split()


def seconds(text: str) -> float:
    """Return a duration of Compose in seconds."""
    found = re.fullmatch(r"(\d+)(s|m)", text)
    assert found, text
    return int(found[1]) * {"s": 1, "m": 60}[found[2]]


def bytes_of(text: str) -> int:
    """Return an amount of memory, of Compose or Kubernetes, in bytes."""
    found = re.fullmatch(r"(\d+)(Mi|Gi|m|g)", text)
    assert found, text
    return int(found[1]) * {"m": 2**20, "Mi": 2**20, "g": 2**30, "Gi": 2**30}[found[2]]
