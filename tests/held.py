"""What API keys hold, counted from the rows of images: what their counters have to say."""

from __future__ import annotations

from collections import Counter

from lazypix.catalog import Catalog, State

HELD: tuple[State, ...] = ("pending", "withdrawn", "ready", "trashed", "deleting")
"""The states of images that count."""


def counted(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Images and bytes of each key that was ever made, by looking at all rows."""
    images: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for image, _ in catalog.walk_all(states=HELD):
        if image.owner is not None:
            images[image.owner] += 1
            size[image.owner] += image.size
    return {record.id: (images[record.id], size[record.id]) for record in catalog.keys.list()}


def told(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Images and bytes of each key by its counters."""
    return {record.id: (record.images, record.bytes) for record in catalog.keys.list()}
