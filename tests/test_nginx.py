"""What nginx is allowed to do by itself, by library and settings; `tests/server` has it in a real nginx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lazypix import Library
from lazypix.engine.idle import IdleEngine
from lazypix.errors import SettingsError
from lazypix.nginx import configuration, front_of
from lazypix.settings import load
from lazypix.stores.memory import MemoryStore


def written(folder: Path, settings: dict[str, Any] | None = None, **options: Any) -> str:
    with Library.open(folder, engine=IdleEngine(), **options) as library:
        return configuration(front_of(load(settings or {}, {}), library))


def test_files_are_sent_only_when_what_is_there_may_be_had(tmp_path: Path) -> None:
    assert "try_files" in written(tmp_path / "folder")
    assert "try_files" not in written(tmp_path / "trash", undelete_s=60.0)
    assert "try_files" not in written(tmp_path / "redirected", {"stored_images": "redirect"})
    assert "try_files" not in written(tmp_path / "elsewhere", store=MemoryStore())


def test_writes_are_refused_exactly_when_there_are_no_keys(tmp_path: Path) -> None:
    assert "return 403" in written(tmp_path)
    assert "return 403" not in written(tmp_path, {"api_keys": ["a" * 16]})


def test_what_is_handed_over_is_mapped_and_nothing_is_cached(tmp_path: Path) -> None:
    text = written(tmp_path, {"accel_redirect": "/files/"})
    assert f'location /files/ {{\n        internal;\n        alias "{tmp_path / "images"}/";' in text
    assert "proxy_cache" not in text
    assert "internal;" not in written(tmp_path)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "127.0.0.1:8000"),
        ({"host": "0.0.0.0", "port": 9, "api_keys": ["a" * 16], "urls": "open"}, "127.0.0.1:9"),
        ({"host": "::", "api_keys": ["a" * 16], "urls": "open"}, "[::1]:8000"),
        ({"host": "::1"}, "[::1]:8000"),
        ({"host": "localhost"}, "localhost:8000"),
    ],
)
def test_lazypix_is_where_the_settings_say(tmp_path: Path, settings: dict[str, Any], address: str) -> None:
    assert f"server {address};" in written(tmp_path, settings)


@pytest.mark.parametrize("name", ["a$b", "a\nb"])
def test_a_folder_that_nginx_cannot_be_told_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be written into a configuration"):
        written(tmp_path / name)
