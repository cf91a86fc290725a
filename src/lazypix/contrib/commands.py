"""lazypix' own command line inside of another one, with the settings of the application."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lazypix.cli.main import app
from lazypix.setting_sources import PREFIX


def run(arguments: Sequence[str], values: Mapping[str, Any], *, name: str) -> None:
    """Run a command; `values` are settings, and `name` what the whole is called in its help.

    Raises:
        SystemExit: at its end, with the exit code.
    """
    with _variables(values):
        app(list(arguments) or ["--help"], prog_name=name)


@contextmanager
def _variables(values: Mapping[str, Any]) -> Iterator[None]:
    """Say settings by the variables that the commands read, for the length of a block."""
    before = dict(os.environ)
    os.environ.update({PREFIX + name.upper(): _text(value) for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _text(value: Any) -> str:
    """Write a value as a variable has it: objects and lists of them as JSON, other lists with commas."""
    if isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value)):
        return json.dumps(value, default=_plain)
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else _plain(value)


def _plain(value: Any) -> str:
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
