"""What the catalog knows of an image and of a variant, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from lazypix.formats import by_extension, by_name
from lazypix.plan import Probe, Turn
from lazypix.references import ImageReference
from lazypix.tokens import Focal

State = Literal["pending", "withdrawn", "ready", "trashed", "deleting", "deleted", "gone"]
"""pending → ready → (trashed →) deleting → deleted → gone, or pending → withdrawn → no row at all.

A trashed image is hidden, and can be had back until the time that is noted as its beginning. The blobs of a `deleted`
one were removed; `gone` says that they were looked for once more after a while, so that not even a variant that was
being stored at that moment is left. The row stays for ever: its ident is never given to other bytes."""
DELETED: tuple[State, ...] = ("deleting", "deleted", "gone")
"""The states of images that are deleted for good."""
LASTING: tuple[State, ...] = ("ready", "trashed", *DELETED)
"""The states of images that were acknowledged once: all but those of uploads that are under way, or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image as the catalog knows it."""

    ident: str
    sha256: str
    """Of the original's bytes, 64 hex digits."""
    size: int
    """Bytes of the original."""
    probe: Probe
    created: datetime
    """UTC."""
    filename: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The caller's own, JSON-able."""
    strikes: int = 0
    """How many renderers were lost to this image."""
    damaged: bool = False
    """The stored original is not what was uploaded, or is gone, and has not been mended yet."""
    owner: str | None = None
    """Id of the API key that it was uploaded with."""

    @property
    def width(self) -> int:
        """Pixels, upright."""
        return self.probe.upright_size[0]

    @property
    def height(self) -> int:
        """Pixels, upright."""
        return self.probe.upright_size[1]

    @property
    def format(self) -> str:
        """Name of the original's format."""
        return self.probe.format

    @property
    def frames(self) -> int:
        """How many frames an animation has; 1 for a still image."""
        return self.probe.frames

    def reference(self, *, focus: Focal | None = None) -> ImageReference:
        """Return what an application keeps of the image; `focus` is what must be seen of it."""
        return ImageReference(
            ident=self.ident, width=self.width, height=self.height, format=self.format,
            thumbhash=self.probe.thumbhash, focus=focus,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return what is known as JSON-able values: width and height in pixels, upright; size in bytes."""
        return {
            "ident": self.ident,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "alpha": self.probe.alpha,
            "orientation": self.probe.orientation,
            "thumbhash": self.probe.thumbhash,
            "size": self.size,
            "sha256": self.sha256,
            "created": self.created.isoformat(),
            "filename": self.filename,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Image:
        """Return the image of which these are the `facts`. What they do not tell has its default.

        Raises:
            KeyError, TypeError, ValueError: they are none.
        """
        orientation = int(facts.get("orientation", 1))
        width, height = Turn.exif(orientation).size(int(facts["width"]), int(facts["height"]))
        return cls(
            ident=str(facts["ident"]), sha256=str(facts["sha256"]), size=int(facts["size"]),
            created=datetime.fromisoformat(facts["created"]).astimezone(UTC), filename=facts["filename"],
            metadata=dict(facts["metadata"]),
            probe=Probe(
                format=by_name(facts["format"]).name, width=width, height=height, frames=int(facts["frames"]),
                orientation=orientation, alpha=bool(facts["alpha"]), thumbhash=facts.get("thumbhash"),
            ),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVariant:
    """One variant that lies in the store."""

    stem: str
    format: str
    size: int
    """Bytes."""
    created: datetime
    """UTC."""
    sha256: str | None = None
    """Of the bytes, 64 hex digits; None for one that was recorded by lazypix 0.1."""
    used: datetime | None = None
    """About when it was last read from the store, UTC."""
    named: bool = False
    """Its size was named in a form, and not only asked for."""
    fence: int = 0
    """Number of the lease under which it was made: a row with a greater one stays. 0: made without, and the row's
    number stays."""

    @property
    def name(self) -> str:
        """The file's name in the store."""
        return f"{self.stem}.{by_name(self.format).extension}"

    def facts(self) -> dict[str, Any]:
        """Return what is known as JSON-able values: `name` is the file's name in the store, `size` in bytes."""
        return {"name": self.name, "size": self.size, "created": self.created.isoformat()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> StoredVariant:
        """Return the variant of which these are the `facts`. What they do not tell has its default.

        Raises:
            KeyError, TypeError, ValueError: they are none.
        """
        stem, _, extension = str(facts["name"]).rpartition(".")
        found = by_extension(extension)
        if found is None:
            raise ValueError(f"unknown format {extension!r}")
        created = datetime.fromisoformat(facts["created"]).astimezone(UTC)
        return cls(stem=stem, format=found.name, size=int(facts["size"]), created=created)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Which of several variants were not recorded, and must not be stored."""

    gone: frozenset[str] = frozenset()
    """Idents of images that are not ready (any more)."""
    late: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """Names (ident, stem, format) whose rows have a greater fence, and that."""


def microseconds(moment: datetime) -> int:
    """Return a moment as microseconds since 1970."""
    return round(moment.timestamp() * 1_000_000)


def moment(value: int) -> datetime:
    """Return microseconds since 1970 as a moment, UTC."""
    return datetime.fromtimestamp(value / 1_000_000, UTC)
