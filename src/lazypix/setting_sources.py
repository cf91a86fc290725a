"""Where settings come from: a TOML file, and `LAZYPIX_*` environment variables. Nothing is judged here."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

PREFIX = "LAZYPIX_"
FILE_VARIABLE = "LAZYPIX_CONFIG"
"""Names the TOML file; without it `lazypix.toml` in the working directory is read, if it is there."""
DEFAULT_FILE = "lazypix.toml"

_JSON = {
    "replicas": 'an array of objects, such as [{"name": …}]',
    "presets": 'an object, such as {"thumb": "200x200,fit=cover"}',
}
_LISTS = (
    "api_keys", "url_keys", "ticket_keys", "outbound_allow", "outbound_ports", "fetch_hosts", "fetch_deny",
    "remote_hosts",
)  # fmt: skip


def read_file(path: Path, *, required: bool) -> tuple[dict[str, Any], list[str]]:
    """Return what a TOML file says, and what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), []
    except FileNotFoundError:
        return {}, [f"{FILE_VARIABLE}={path}: there is no such file"] if required else []
    except (OSError, ValueError) as error:
        return {}, [f"{path}: {error}"]


def read_environment(environment: Mapping[str, str], names: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what variables say of the settings that have these names, and what is wrong with them."""
    values: dict[str, Any] = {}
    faults = []
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in names:
            faults.append(f"{variable}: there is no such setting; `lazypix config` lists them")
        elif name in _LISTS:
            values[name] = [part.strip() for part in text.split(",") if part.strip()]
        elif name in _JSON:
            try:
                values[name] = json.loads(text)
            except ValueError:
                faults.append(f"{variable} is not JSON; accepted: {_JSON[name]}")
        else:
            values[name] = text
    return values, faults
