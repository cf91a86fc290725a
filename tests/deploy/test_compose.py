"""compose.yaml cannot be run here: it is held against its schema, and against the code. `tests/fleet` runs the same
topology with processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.files import (
    COMPOSE,
    bytes_of,
    check_command,
    documents,
    image_environment,
    seconds,
    settings_of,
    shell_commands,
)
from tests.programs import ROOT, find

from lazypix.settings import Settings, load
from lazypix.stores.addresses import open_store

(FILE,) = documents(COMPOSE)
SERVICES: dict[str, Any] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("lazypix")}
SERVERS = [name for name in OURS if name.startswith("server-")]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets, as the script makes them."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(ROOT / "deploy" / "secrets.sh", folder)
    subprocess.run(["/bin/sh", str(folder / "secrets.sh")], check=True, capture_output=True, timeout=180)
    return folder / "secrets"


def settings_for(name: str, secrets: Path) -> Settings:
    """Return the settings with which a service starts."""
    environment = settings_of(image_environment(), OURS[name]["environment"])
    file = environment["LAZYPIX_CONFIG"]
    assert file == "/run/secrets/lazypix.toml"
    return load({}, environment | {"LAZYPIX_CONFIG": str(secrets / Path(file).name)})


def test_it_is_what_the_specification_says() -> None:
    command = [find("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout


def test_the_fleet_is_whole() -> None:
    assert len(SERVERS) == 2
    assert {"worker", "beat", "front", "postgres", "redis", "s3"} <= set(SERVICES)


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_each_are_accepted_and_reach_what_is_there(name: str, secrets: Path) -> None:
    settings = settings_for(name, secrets)
    assert settings.catalog
    assert settings.shared_cache
    assert settings.leases
    assert settings.broker
    assert settings.jobs == "celery"
    addresses = {
        "@postgres/": settings.catalog, "//cache:6379/": settings.shared_cache, "//redis:6379/1": settings.leases,
        "//redis:6379/0": settings.broker,
    }  # fmt: skip
    for service, address in addresses.items():
        assert service in address.get_secret_value()
    assert "//s3:8333&" in settings.store
    assert settings.store_access_key
    assert settings.store_secret_key
    keys = {"access_key": settings.store_access_key, "secret_key": settings.store_secret_key}
    open_store(settings.store, secrets={name: key.get_secret_value() for name, key in keys.items()})


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_each_exists(name: str) -> None:
    command = OURS[name].get("command", ["lazypix", "serve"])
    lines = list(shell_commands(command[2])) if command[0] == "sh" else [command]
    test = OURS[name].get("healthcheck", {}).get("test", ["CMD"])
    lines += list(shell_commands(test[1])) if test[0] == "CMD-SHELL" else []
    assert lines
    for line in lines:
        check_command(line)


def test_nginx_is_told_of_every_server(secrets: Path) -> None:
    written = OURS["front-configuration"]["command"][2]
    for name in SERVERS:
        assert f"--upstream {name}:{settings_for(name, secrets).port}" in written
    assert set(SERVERS) <= set(SERVICES["front"]["depends_on"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_each_names_is_defined(name: str) -> None:
    service = SERVICES[name]
    named = {volume.split(":")[0] for volume in service.get("volumes", ())}
    assert named <= set(FILE["volumes"]), name
    assert set(service["networks"]) <= set(FILE["networks"]), name
    assert set(service.get("secrets", ())) <= set(FILE["secrets"]), name
    assert set(service.get("depends_on", ())) <= set(SERVICES), name
    for other, how in service.get("depends_on", {}).items():
        waits = how["condition"]
        ends = SERVICES[other]["restart"] == "no"
        assert waits == ("service_completed_successfully" if ends else "service_healthy"), (name, other)
        assert ends or other in SERVERS or "test" in SERVICES[other]["healthcheck"], (name, other)


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_and_nothing_is_open_to_the_world(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert tag
    assert tag != "latest"
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "what reaches further is for its operator to open"
    if name in OURS:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", OURS)
def test_limits_fit_each_other(name: str, secrets: Path) -> None:
    settings = settings_for(name, secrets)
    assert seconds(OURS[name]["stop_grace_period"]) >= settings.drain_delay_s + settings.drain_s + 10
    if name in SERVERS:
        limits = OURS[name]["deploy"]["resources"]["limits"]
        assert settings.renderers <= float(limits["cpus"])
        assert bytes_of(limits["memory"]) >= settings.cache_bytes + (settings.renderers + 1) * 300 * 2**20


def test_no_secret_is_in_it(secrets: Path) -> None:
    text = COMPOSE.read_text()
    for field, info in Settings.model_fields.items():
        if "SecretStr" in str(info.annotation) and f"LAZYPIX_{field.upper()}:" in text:
            value = text.partition(f"LAZYPIX_{field.upper()}:")[2].splitlines()[0]
            assert "@" not in value, field
    assert "POSTGRES_PASSWORD:" not in text
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for secret in FILE["secrets"].values():
        assert secret["file"].startswith("deploy/secrets/")
        assert (secrets / Path(secret["file"]).name).exists()
    assert "/deploy/secrets/" in ignored


def test_the_secrets_belong_together_and_are_made_once(secrets: Path) -> None:
    settings = load({}, {"LAZYPIX_CONFIG": str(secrets / "lazypix.toml")})
    (identity,) = json.loads((secrets / "s3.json").read_text())["identities"]
    assert settings.store_access_key
    assert settings.store_secret_key
    assert settings.catalog
    assert identity["credentials"] == [
        {
            "accessKey": settings.store_access_key.get_secret_value(),
            "secretKey": settings.store_secret_key.get_secret_value(),
        }
    ]
    password = (secrets / "postgres_password").read_text()
    assert settings.catalog.get_secret_value() == f"postgresql://lazypix:{password}@postgres/lazypix"
    assert settings.callback_secret
    keys = (settings.store_access_key, settings.store_secret_key, settings.callback_secret, *settings.api_keys)
    values = {password, *(key.get_secret_value() for key in keys)}
    assert len(values) == 5, "each is one of its own"
    assert all(len(value) == 48 for value in values)
    assert secrets.stat().st_mode & 0o777 == 0o700
    again = subprocess.run(
        ["/bin/sh", str(secrets.parent / "secrets.sh")], capture_output=True, timeout=30, check=False
    )
    assert again.returncode == 1
    assert (secrets / "postgres_password").read_text() == password
