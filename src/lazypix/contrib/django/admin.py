"""Help for the admin."""

from __future__ import annotations

from collections.abc import Callable

from django.db import models
from django.utils.safestring import SafeString

from lazypix.contrib.django.values import StoredImage


def thumbnail(
    name: str, transform: str = "80x80,fit=cover", *, description: str | None = None
) -> Callable[[models.Model], str]:
    """Return a column for `list_display` (or a line for `readonly_fields`) that shows the image of a field."""

    def show(row: models.Model) -> str:
        value = getattr(row, name)
        # Of Django's own kind: the admin takes the `str` of other HTML, and escapes it.
        return SafeString(value.img(transform, alt="")) if isinstance(value, StoredImage) else ""

    show.short_description = name.replace("_", " ") if description is None else description  # type: ignore[attr-defined]
    return show
