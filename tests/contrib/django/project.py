"""A Django project in the tests' own process: set up once, without disturbing what knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test.utils import override_settings

from lazypix import Library
from lazypix.contrib.django import configured

APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
    "django.contrib.sessions", "lazypix.contrib.django", "tests.contrib.django.shop",
]  # fmt: skip
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


def begin() -> None:
    """Set Django up, in this process, for good. Nothing of the environment changes, nor of logging."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="of the tests",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=APPS,
        MIDDLEWARE=MIDDLEWARE,
        ROOT_URLCONF="tests.contrib.django.urls",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "to be said"}},
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        LOGGING_CONFIG=None,
        USE_TZ=True,
        STATIC_URL="/static/",
        STORAGES={
            "default": {"BACKEND": "lazypix.contrib.django.storage.LazypixStorage", "OPTIONS": {"fallback": "files"}},
            "images": {"BACKEND": "lazypix.contrib.django.storage.LazypixStorage"},
            "files": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        },
        LAZYPIX={"data": "to be said"},
    )
    django.setup()


@contextmanager
def running(folder: Path, **more: Any) -> Iterator[Library]:
    """A database and a library in a folder, for the length of a block."""
    connection = connections["default"]
    connection.close()
    connection.settings_dict["NAME"] = str(folder / "project.sqlite")
    values = {"data": folder / "images", "jobs": "none", **more}
    with override_settings(LAZYPIX=values):
        call_command("migrate", run_syncdb=True, verbosity=0)
        try:
            yield configured.library()
        finally:
            configured.library.close()
            connections.close_all()
