"""A storage of Django's, for `ImageField`s as they are: `STORAGES = {"default": {"BACKEND": "…LazypixStorage"}}`.

The name that a row keeps holds the ident: `photos/lazypix-0199….jpg`. So addresses need no lookup, names are never
taken twice, and another storage's names are told apart.
"""

from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files import File
from django.core.files.storage import Storage, storages
from django.utils import timezone
from django.utils.deconstruct import deconstructible

from lazypix.catalog import Image
from lazypix.contrib.django import configured
from lazypix.contrib.django.values import opened
from lazypix.errors import LazypixError, UnknownImage, UnsupportedImage
from lazypix.formats import by_name
from lazypix.references import ImageReference

_NAME = re.compile(r"(?:.*/)?lazypix-(?P<ident>[A-Za-z0-9_-]{1,128})\.(?P<extension>[a-z0-9]+)", re.ASCII | re.DOTALL)
_OUR_PART = len("lazypix-") + 32 + len(".webp")


class FileRefused(SuspiciousFileOperation):
    """lazypix does not store this file; Django answers such a request with 400."""


def ident_of(name: str) -> str | None:
    """Return the ident in a name that the storage gave, or None for any other name."""
    found = _NAME.fullmatch(name)
    return found["ident"] if found else None


class _Original(File):
    """An original; as Django's own files it can be opened again after it was closed."""

    def __init__(self, image: Image, name: str) -> None:
        self._image = image
        super().__init__(self._read(), name)

    def open(self, *_: Any, **__: Any) -> _Original:
        """Go to the beginning."""
        if self.closed:
            self.file = self._read()
        self.seek(0)
        return self

    def _read(self) -> BinaryIO:
        library = configured.library()
        path = library.original_path(self._image)
        return io.BytesIO(library.original(self._image.ident)) if path is None else path.open("rb")


@deconstructible
class LazypixStorage(Storage):
    """Keeps images in the library.

    `fallback`, another alias in `STORAGES`, gets all other files, and is asked for all other names.
    """

    def __init__(self, *, fallback: str | None = None) -> None:
        self._fallback = fallback

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Store an image, and return the name that it is found by from now on.

        Raises:
            FileRefused: it is no image that lazypix stores (and there is no `fallback` for what is no image at all),
                or the name would be longer than `max_length`.
        """
        asked = PurePosixPath((name if name is not None else content.name).replace("\\", "/"))
        folder = "" if str(asked.parent) == "." else f"{asked.parent}/"
        if max_length is not None and len(folder) + _OUR_PART > max_length:
            raise FileRefused(
                f"A name in {folder!r} has up to {len(folder) + _OUR_PART} characters; the field: {max_length}"
            )
        if not hasattr(content, "chunks"):
            content = File(content, name)
        try:
            image = configured.library().add(opened(content), filename=asked.name)
        except UnsupportedImage as error:
            if self._fallback is None:
                raise FileRefused(
                    f"{asked.name}: {error}; other files need a storage of their own (`fallback`)"
                ) from error
            return str(storages[self._fallback].save(name, opened(content), max_length=max_length))
        except LazypixError as error:
            if error.status >= 500:
                raise
            raise FileRefused(f"{asked.name}: {error}") from error
        return f"{folder}lazypix-{image.ident}.{by_name(image.format).extension}"

    def _open(self, name: str, mode: str = "rb") -> File:
        if mode != "rb":
            raise ValueError(f"mode={mode!r} is not possible, an image never changes; accepted: 'rb'")
        return _Original(self._image(name), name)

    def open(self, name: str, mode: str = "rb") -> File:
        """Open an image for reading."""
        return self._open(name, mode) if ident_of(name) else self._other(name).open(name, mode)

    def delete(self, name: str) -> None:
        """Remove an image; one that is not there is no error."""
        if not name:
            raise ValueError("The name must be given to delete().")
        if not (ident := ident_of(name)):
            if self._fallback is not None:
                self._other(name).delete(name)
            return
        try:
            configured.library().delete(ident)
        except UnknownImage:
            return

    def exists(self, name: str) -> bool:
        """Tell whether there is an image of this name."""
        if not ident_of(name):
            return self._fallback is not None and bool(self._other(name).exists(name))
        try:
            self._image(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Return the size of the original in bytes."""
        return self._image(name).size if ident_of(name) else int(self._other(name).size(name))

    def url(self, name: str | None) -> str:
        """Return the address of the original. No I/O."""
        found = _NAME.fullmatch(name or "")
        if found is None:
            return str(self._other(name or "").url(name))
        return configured.addresses().original(found["ident"], found["extension"])

    def get_created_time(self, name: str) -> datetime:
        """Return when an image was stored: aware if `USE_TZ` is set, else in the local time zone."""
        if not ident_of(name):
            return self._other(name).get_created_time(name)  # type: ignore[no-any-return]
        created = self._image(name).created
        return created if settings.USE_TZ else timezone.make_naive(created)

    get_modified_time = get_created_time  # an image never changes

    def reference(self, name: str) -> ImageReference:
        """Return what is known of an image, for a `LazypixField`: moving to one copies nothing.

        Raises:
            FileNotFoundError: there is no such image.
        """
        return self._image(name).reference()

    def _image(self, name: str) -> Image:
        try:
            return configured.library().get(ident_of(name) or "")
        except UnknownImage:
            raise FileNotFoundError(f"There is no image {name}") from None

    def _other(self, name: str) -> Any:
        if self._fallback is None:
            raise FileNotFoundError(f"{name!r} is no name of this storage, and it has no fallback")
        return storages[self._fallback]
