"""What is known of the health of images: renderers lost to them, and when their bytes were verified last."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import select, tuple_, update

from lazypix.catalog.announcing import announce
from lazypix.catalog.database import Database
from lazypix.catalog.image_rows import image_of
from lazypix.catalog.tables import images
from lazypix.catalog.values import Image


class HealthRows:
    """The health of all images, in their rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def strike(self, ident: str) -> None:
        """Record that a renderer was lost to this image."""
        with self._database.writing() as connection:
            connection.execute(update(images).where(_is(ident)).values(strikes=images.c.strikes + 1))
            announce(connection, [ident])

    def mark(self, ident: str, *, damaged: bool) -> None:
        """Record that an original's bytes were verified now, and what was found; a damaged one is looked at first."""
        checked = 0 if damaged else time.time_ns() // 1000
        with self._database.writing() as connection:
            other = update(images).where(_is(ident), images.c.damaged.is_not(damaged)).values(damaged=damaged)
            if connection.execute(other).rowcount:
                announce(connection, [ident])
            connection.execute(update(images).where(_is(ident)).values(checked_us=checked))

    def unchecked(
        self, *, until_us: int, behind: tuple[int, str] | None = None, limit: int
    ) -> list[tuple[int, Image]]:
        """Return ready images that were not verified since a time, with when they were: longest ago first.

        Times are microseconds since 1970; `behind` is time and ident at which the page before ended.
        """
        order = (images.c.checked_us, images.c.ident)
        query = select(images).where(images.c.state == "ready", images.c.checked_us <= until_us)
        if behind is not None:
            query = query.where(tuple_(*order) > tuple_(*behind))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit))
            return [(row.checked_us, image_of(row)) for row in rows]


def _is(ident: str) -> Any:
    return images.c.ident == ident
