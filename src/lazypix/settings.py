"""Settings, from a TOML file and `LAZYPIX_*` environment variables.

The environment wins over the file, arguments win over both. All faults are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, model_validator

from lazypix.errors import SettingsError
from lazypix.gate import Gate
from lazypix.plan import Limits
from lazypix.presets import Presets
from lazypix.replica_settings import ReplicaSettings
from lazypix.setting_groups.access import AccessSettings
from lazypix.setting_groups.asking import AskingSettings
from lazypix.setting_groups.delivering import DeliveringSettings
from lazypix.setting_groups.fetching import FetchingSettings
from lazypix.setting_groups.keeping import KeepingSettings
from lazypix.setting_groups.linking import LinkingSettings
from lazypix.setting_groups.listening import ListeningSettings
from lazypix.setting_groups.rendering import RenderingSettings
from lazypix.setting_groups.telling import TellingSettings
from lazypix.setting_groups.working import WorkingSettings
from lazypix.setting_rules import open_to_all, over_limits, ring_of, secrets_of, unanswerable
from lazypix.setting_sources import DEFAULT_FILE, FILE_VARIABLE, PREFIX, read_environment, read_file
from lazypix.stores.addresses import without_secrets


class Settings(
    AskingSettings,
    DeliveringSettings,
    WorkingSettings,
    RenderingSettings,
    ListeningSettings,
    LinkingSettings,
    AccessSettings,
    FetchingSettings,
    TellingSettings,
    KeepingSettings,
):
    """Everything that can be set. Frozen; every field has a default. The last of the groups is shown first."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _who_may_ask(self) -> Settings:
        faults = [*_gaps(self.model_dump()), over_limits(self.gate.presets, self.limits)]
        if any(faults):
            raise ValueError("\n  ".join(fault for fault in faults if fault))
        return self

    @model_validator(mode="after")
    def _celery_has_a_broker(self) -> Settings:
        if self.jobs == "celery" and self.broker is None:
            raise ValueError('jobs="celery" needs broker, the address of a Redis or RabbitMQ server')
        return self

    @model_validator(mode="after")
    def _names_apart(self) -> Settings:
        names = [replica.name for replica in self.replicas] + (["replica"] if self.replica else [])
        if len(set(names)) != len(names):
            raise ValueError(f"replicas: two have one name ({', '.join(names)}); `replica` is called replica")
        return self

    @property
    def callback_secrets(self) -> list[bytes]:
        """What signs callbacks: none, one, or two while it is changed."""
        return secrets_of(self.callback_secret)

    @property
    def gate(self) -> Gate:
        """Who may ask for which variants."""
        return Gate(mode=self.urls or "open", ring=ring_of(self.url_keys), presets=Presets.read(self.presets))

    @property
    def limits(self) -> Limits:
        """The limits on images."""
        return Limits(
            max_bytes=self.max_bytes, max_pixels=self.max_pixels, max_frames=self.max_frames, max_side=self.max_side
        )


_SECRET = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}


def load(overrides: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings: defaults, then the TOML file, then the environment, then `overrides` (None is left out).

    Raises:
        SettingsError: names every fault: the setting, its value, and what is accepted.
    """
    path = environment.get(FILE_VARIABLE)
    file, file_faults = read_file(Path(path) if path else Path(DEFAULT_FILE), required=bool(path))
    variables, variable_faults = read_environment(environment, Settings.model_fields)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    values = {**file, **variables, **given}
    sources = dict.fromkeys(file, path or DEFAULT_FILE) | {name: PREFIX + name.upper() for name in variables}
    faults = [*file_faults, *variable_faults]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(item, sources) for item in error.errors()]
        if all(item["loc"] for item in error.errors()):  # pydantic looks at the whole only when every part is right
            faults += _gaps(values)
    if faults:
        raise SettingsError("\n".join(["The settings are wrong:", *(f"  {fault}" for fault in faults)]))
    return settings


def load_library(path: Path) -> Settings:
    """Read the settings of the library at `path`: its folder, with defaults for all else, or its TOML file.

    The environment has no say, since it may be about another library; nor is an address listened on.

    Raises:
        SettingsError: as `load`.
    """
    if path.is_file():
        return load({"host": Settings.model_fields["host"].default}, {FILE_VARIABLE: str(path)})
    return Settings.model_validate({"data": path})


def shown(settings: Settings) -> dict[str, Any]:
    """Return the settings in force as plain values, secrets masked."""
    values = settings.model_dump(mode="json")
    values |= {name: without_secrets(values[name]) for name in ("store", "replica")}
    return values | {"replicas": [replica.shown() for replica in settings.replicas]}


def _gaps(values: Mapping[str, Any]) -> list[str]:
    """Return which settings are missing because of what others say."""
    urls = values.get("urls")
    found = (
        open_to_all(
            values.get("host"), api_keys=values.get("api_keys"), keys_required=values.get("keys_required"), urls=urls
        ),
        unanswerable(urls, url_keys=values.get("url_keys"), presets=values.get("presets")),
    )
    return [fault for fault in found if fault is not None]


def _fault(item: Any, sources: Mapping[str, str]) -> str:
    if not item["loc"]:
        return str(item["msg"]).removeprefix("Value error, ")
    setting, *inner = item["loc"]
    name = str(setting) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inner)
    where = f" ({sources[setting]})" if setting in sources else ""
    if item["type"] == "extra_forbidden":
        accepted = f"accepted: {', '.join(ReplicaSettings.model_fields)}" if inner else "`lazypix config` lists them"
        return f"{name}{where}: there is no such setting; {accepted}"
    secret = setting in _SECRET or {"access_key", "secret_key"} & set(inner) or _may_hold_secrets(item["input"])
    value = "********" if secret else repr(item["input"])
    said = str(item["msg"]).removeprefix("Value error, ")
    return f"{name}={value}{where}: {said[0].lower()}{said[1:]}"


def _may_hold_secrets(value: object) -> bool:
    """Tell whether this is a table of settings, or several: among them may be secrets."""
    return isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value))
