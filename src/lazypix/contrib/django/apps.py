"""The application: its checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from lazypix.contrib.django.checks import check_settings


class LazypixConfig(AppConfig):
    """lazypix in a Django project."""

    name = "lazypix.contrib.django"
    label = "lazypix"
    verbose_name = "lazypix"

    def ready(self) -> None:
        """Have `manage.py check` look at the settings."""
        checks.register(check_settings, "lazypix")
