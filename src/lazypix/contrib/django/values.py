"""What the attribute of a row is: an image that is stored, or one that will be when the row is saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from django.core.files import File

from lazypix.catalog import Image
from lazypix.contrib.django import configured
from lazypix.contrib.django.keeping import Keepsake, remember
from lazypix.errors import BadRequest
from lazypix.markup import Html
from lazypix.references import ImageReference
from lazypix.tokens import Focal
from lazypix.transform import Transform

ACCEPTED = (
    "an uploaded file, a File, bytes, a pathlib.Path, an Image of the library, an ImageReference, a value of such a "
    "field, or None"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image that lies in the library. What is asked of it here needs neither store nor catalog."""

    reference: ImageReference
    origin: NewImage | None = field(default=None, compare=False, repr=False)
    """What it was stored from, as long as its row may still be rolled back."""

    def __str__(self) -> str:
        return self.ident

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.reference.to_json(),)  # a file cannot be pickled, and a copy has no part in its fate

    @property
    def ident(self) -> str:
        """The image's ident."""
        return self.reference.ident

    @property
    def width(self) -> int:
        """Pixels, upright."""
        return self.reference.width

    @property
    def height(self) -> int:
        """Pixels, upright."""
        return self.reference.height

    @property
    def format(self) -> str:
        """Name of the original's format."""
        return self.reference.format

    @property
    def focus(self) -> Focal | None:
        """What must be seen when the image is cropped; None: the middle."""
        return self.reference.focus

    def with_focus(self, x: float, y: float) -> StoredImage:
        """Return the same image with a focal point: fractions 0..1 from left and top.

        Raises:
            BadTransform: they are no such fractions.
        """
        return replace(self, reference=replace(self.reference, focus=Focal(x=x, y=y)))

    def without_focus(self) -> StoredImage:
        """Return the same image without a focal point."""
        return replace(self, reference=replace(self.reference, focus=None))

    def url(
        self, transform: Transform | str = "full", *, format: str | None = None, expires_s: float | None = None
    ) -> str:
        """Return the address of a variant; without a format the client's `Accept` header decides.

        It is signed where the settings want it, and good for ever, or for `expires_s` seconds at least.

        Raises:
            BadTransform: malformed.
        """
        tags = replace(configured.tags(), expires_s=expires_s)
        return tags.src(self.reference, transform, format=format)

    def srcset(self, transform: Transform | str = "full", **options: Any) -> str:
        """Return candidates for browsers to choose from; see `Tags.srcset`."""
        return configured.tags().srcset(self.reference, transform, **options)

    def img(self, transform: Transform | str = "full", *, alt: str, **options: Any) -> Html:
        """Return an `<img>`; see `Tags.img`."""
        return configured.tags().img(self.reference, transform, alt=alt, **options)

    def picture(self, transform: Transform | str = "full", *, alt: str, **options: Any) -> Html:
        """Return a `<picture>`; see `Tags.picture`."""
        return configured.tags().picture(self.reference, transform, alt=alt, **options)


def _restored(value: Mapping[str, Any]) -> StoredImage:
    return StoredImage(reference=ImageReference.from_json(value))


class NewImage:
    """An image that was given to a row, and is stored when the row is saved. Not for several threads at once."""

    def __init__(
        self, source: File | bytes | Path | BinaryIO, *, filename: str | None = None, focus: Focal | None = None
    ) -> None:
        self._source: File | bytes | Path | BinaryIO | None = source
        self.filename = filename if filename is not None else _name_of(source)
        self.focus = focus
        self._keepsake: Keepsake | None = None
        self._reference: ImageReference | None = None

    def __repr__(self) -> str:
        return f"NewImage({self.filename!r})"

    def stored(self) -> StoredImage:
        """Return the image, stored now unless it lies there already. After a rollback it is stored once more.

        Raises:
            LazypixError: as `Library.add`.
        """
        if self._keepsake is None or self._keepsake.is_gone():
            assert self._source is not None, "what is gone was not kept, so its source is still here"
            image = configured.library().add(opened(self._source), filename=self.filename)
            self._keepsake = remember(image.ident)
            self._reference = image.reference(focus=self.focus)
        assert self._reference is not None
        if self._keepsake.is_kept():
            self._source = None
            return StoredImage(reference=self._reference)
        return StoredImage(reference=self._reference, origin=self)

    def keep(self) -> None:
        """Let the image that was stored stay: its row is there."""
        if self._keepsake is not None:
            self._keepsake.keep()

    def entrust(self, using: str) -> None:
        """Let the transaction that is under way decide whether it stays."""
        if self._keepsake is not None:
            self._keepsake.entrust(using)


Value = StoredImage | NewImage | None


def opened(source: File | bytes | Path | BinaryIO) -> bytes | Path | BinaryIO:
    """Return a source as it can be read from its beginning."""
    if isinstance(source, File):
        source.open("rb")
        source.seek(0)
        return source  # type: ignore[no-any-return]  # reads as a binary file does
    if not isinstance(source, bytes | Path) and source.seekable():
        source.seek(0)
    return source


def value_of(given: object) -> Value:
    """Return what an attribute becomes when something is assigned to it.

    Raises:
        TypeError: it is nothing of what is accepted.
        BadRequest: it is JSON of something else.
    """
    if given is None or given == "" or isinstance(given, StoredImage | NewImage):
        return given or None  # type: ignore[return-value]
    if isinstance(given, ImageReference):
        return StoredImage(reference=given)
    if isinstance(given, Image):
        return StoredImage(reference=given.reference())
    if isinstance(given, Mapping):
        return _restored(given)
    if isinstance(given, str) and given.startswith("{"):
        return read(given)
    if isinstance(given, bytearray | memoryview):
        given = bytes(given)
    if isinstance(given, File | bytes | Path) or hasattr(given, "read"):
        return NewImage(given)
    raise TypeError(f"A {type(given).__name__} is no image; accepted: {ACCEPTED}")


def read(text: str) -> StoredImage:
    """Return the image that `written` made this text of.

    Raises:
        BadRequest: it is no such text.
    """
    try:
        return _restored(json.loads(text))
    except ValueError:
        raise BadRequest(f"{text[:40]!r} is no image; accepted: the JSON of an image reference") from None


def written(reference: ImageReference) -> str:
    """Return what the column holds: compact JSON that begins with the ident, so that an index finds it."""
    return json.dumps(reference.to_json(), separators=(",", ":"))


def beginning(ident: str) -> str:
    """Return how the text of every reference to an image begins."""
    return f'{{"ident":{json.dumps(ident)},'


def _name_of(source: object) -> str | None:
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else None
