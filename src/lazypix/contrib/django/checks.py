"""What `manage.py check` says of a project's settings. Nothing is opened or made."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from django.core import checks
from django.core.checks import CheckMessage, Error

from lazypix.contrib.django import configured
from lazypix.errors import SettingsError
from lazypix.settings import Settings


def check_settings(**_: Any) -> list[CheckMessage]:
    """Look at `LAZYPIX`, the folder that it names, and where our URLs are included."""
    try:
        settings = configured.load_settings()
    except SettingsError as error:
        return [Error(str(error), hint=f"They are in {configured.SETTING}, in lower case.", id="lazypix.E001")]
    return [*_check_folder(settings), *_check_addresses(settings)]


def _check_folder(settings: Settings) -> list[CheckMessage]:
    folder = settings.data.absolute()
    found: list[CheckMessage] = []
    if "data" not in settings.model_fields_set:
        hint = f'Say {configured.SETTING} = {{"data": BASE_DIR / "images"}}.'
        found.append(
            checks.Warning(
                f"Images are kept in {folder}, which depends on where Python is started", hint=hint, id="lazypix.W002"
            )
        )
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        found.append(Error(f"data: {there} is no folder", id="lazypix.E003"))
    elif not os.access(there, os.W_OK | os.X_OK):
        found.append(Error(f"data: this process must not write into {there}", id="lazypix.E003"))
    return found


def _check_addresses(settings: Settings) -> list[CheckMessage]:
    mounted = configured.mounted_at()
    if mounted is None and not settings.base_url:
        hint = 'path("media/", include("lazypix.contrib.django.urls")), or base_url where a server of lazypix is.'
        return [
            checks.Warning(
                "Nothing serves the images: our URLs are not included, and base_url is not set",
                hint=hint,
                id="lazypix.W004",
            )
        ]
    path = urlsplit(settings.base_url).path.rstrip("/")
    if mounted is None or path == mounted:
        return []
    text = f"base_url={settings.base_url!r} names the path {path!r}, but our URLs are included at {mounted!r}"
    return [
        checks.Warning(
            text,
            hint="Leave base_url out, or end it with that path, unless something rewrites it.",
            id="lazypix.W005",
        )
    ]
