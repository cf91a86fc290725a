"""Uploads are looked at as lazypix does when it stores them, and nothing is stored."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from django.core.files import File

from lazypix.contrib.django import configured
from lazypix.contrib.django.values import opened
from lazypix.plan import Probe


def verify(source: File | bytes | Path | BinaryIO) -> Probe:
    """Decode an image to its end, and return what it is.

    Raises:
        BadUpload, UnsupportedImage, TooLarge, BrokenImage, Busy: it would not be stored either.
    """
    library = configured.library()
    with library.incoming.new() as incoming:
        incoming.copy(opened(source))
        return library.uploads.verify(incoming, getattr(source, "name", None))
