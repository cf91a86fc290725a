"""The project's settings. Variables of the environment say where its files are: `GALLERY_FOLDER`."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("GALLERY_FOLDER", Path(__file__).parent.parent / "var"))
FOLDER.mkdir(parents=True, exist_ok=True)

SECRET_KEY = os.environ.get("GALLERY_SECRET_KEY", "only for this example")
DEBUG = os.environ.get("GALLERY_DEBUG", "yes") == "yes"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "gallery.urls"
WSGI_APPLICATION = "gallery.wsgi.application"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "lazypix.contrib.django",
    "gallery",
]

# What lazypix' own settings are, in lower case. `LAZYPIX_…` variables say what is not said here.
LAZYPIX = {"data": FOLDER / "images"}

MIDDLEWARE = [
    "gallery.counting.count_queries",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "gallery.sqlite"}}

TEMPLATES = [
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
]
