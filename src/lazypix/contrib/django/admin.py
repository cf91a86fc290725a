"""Help for the admin."""

from __future__ import annotations

from collections.abc import Callable

from django.db import models

from lazypix.contrib.django.values import StoredImage
from lazypix.markup import Html


def thumbnail(
    name: str, transform: str = "80x80,fit=cover", *, description: str | None = None
) -> Callable[[models.Model], Html | str]:
    """Return a column for `list_display` (or a line for `readonly_fields`) that shows the image of a field."""

    def show(row: models.Model) -> Html | str:
        value = getattr(row, name)
        return value.img(transform, alt="") if isinstance(value, StoredImage) else ""

    show.short_description = name.replace("_", " ") if description is None else description  # type: ignore[attr-defined]
    return show
