"""Rows of images, and the values that they are."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Row

from lazypix.catalog.search import filename_key
from lazypix.catalog.values import Image, microseconds, moment
from lazypix.plan import Probe


def row_of(image: Image) -> dict[str, Any]:
    """Return the columns of an image that is new, and verified just now; its state is not among them."""
    probe = image.probe
    return {
        "ident": image.ident,
        "created_us": microseconds(image.created),
        "sha256": image.sha256,
        "size": image.size,
        "format": probe.format,
        "width": probe.width,
        "height": probe.height,
        "frames": probe.frames,
        "orientation": probe.orientation,
        "alpha": probe.alpha,
        "thumbhash": probe.thumbhash,
        "owner": image.owner,
        "filename": image.filename,
        "filename_key": filename_key(image.filename),
        "metadata": dict(image.metadata),
        "strikes": image.strikes,
        "checked_us": time.time_ns() // 1000,
        "damaged": image.damaged,
    }


def image_of(row: Row[Any]) -> Image:
    """Return the image of which this is the row."""
    return Image(
        ident=row.ident,
        sha256=row.sha256,
        size=row.size,
        probe=Probe(
            format=row.format,
            width=row.width,
            height=row.height,
            frames=row.frames,
            orientation=row.orientation,
            alpha=row.alpha,
            thumbhash=row.thumbhash,
        ),
        created=moment(row.created_us),
        filename=row.filename,
        metadata=row._mapping["metadata"],
        strikes=row.strikes,
        damaged=row.damaged,
        owner=row.owner,
    )
