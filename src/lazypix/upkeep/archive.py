"""A library in one file: a plain tar that anyone can unpack, written and read front to back.

::

    lazypix.json           what this is
    <ident>/image.json     what is known of an image
    <ident>/origin.jpg     its original, as it was uploaded
    <ident>/200x.webp      its stored variants, if they were wanted
    …
    end.json               how many images there are: without it the archive ends early
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from lazypix import __version__
from lazypix.catalog import DELETED, LASTING, Image, State, StoredVariant
from lazypix.errors import (
    BadArchive,
    BlobMissing,
    Busy,
    LazypixError,
    OriginalDamaged,
    StoreFull,
    TooLarge,
    UnknownImage,
    UnsupportedImage,
)
from lazypix.formats import SNIFF_BYTES, by_name, readable
from lazypix.incoming import Incoming
from lazypix.library import Library
from lazypix.upkeep.crew import Crew
from lazypix.upkeep.facts import read_facts, read_object, write_facts
from lazypix.upkeep.intake import Entry, Intake, next_step
from lazypix.upkeep.reading import read_original, read_variant, stored_variants
from lazypix.upkeep.report import Progress, Report, Tally
from lazypix.upkeep.tar import Member, TarReader, TarWriter

log = logging.getLogger("lazypix")

_FORMAT, _VERSION = "lazypix archive", 1
_MOST_FACTS = 16 * 1024 * 1024
_AT_ONCE = 100
_DRAINED = 1024


def export_library(
    library: Library,
    file: BinaryIO,
    *,
    idents: Collection[str] | None = None,
    variants: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write all images, or those that are named, to an archive; all: also which idents were deleted.

    Every original is verified first. One that is damaged or missing is left out and told in the report; the others
    go on. Needs no engine. Who opened the file closes it.

    Raises:
        OSError: the file cannot be written.
        StoreFailed: the catalog cannot do its work.
    """
    total = _total(library) if idents is None else len(idents)
    export = _Export(library, TarWriter(file), Tally(progress, total), with_variants=variants)
    return export.run(library.catalog.walk_all() if idents is None else export.named(idents))


def import_library(
    library: Library, file: BinaryIO, *, trust: bool = False, progress: Progress | None = None, threads: int = 4
) -> Report:
    """Take in all images of an archive that the library does not have.

    Nothing is believed: every original is held against its checksum, and decoded to the end as an upload is. With
    `trust` the archive is taken for one of our own: originals are not decoded, and stored variants are taken too,
    of which nobody can tell whether they show the original. What is there stays as it is; an image that cannot be
    taken is told in the report, and the others go on. Whenever this was cut short, another run completes it.

    Raises:
        BadArchive: it ends early, or is no archive of images; what was taken in before stays.
        StoreFull: no space left.
    """
    running = _Import(library, Tally(progress), trust=trust)
    with running, Crew(threads) as crew:
        running.run(file, crew)
    return running.tally.report


class _Export:
    """One export."""

    def __init__(self, library: Library, tar: TarWriter, tally: Tally, *, with_variants: bool) -> None:
        self._library = library
        self._tar = tar
        self._tally = tally
        self._with_variants = with_variants

    def run(self, entries: Iterator[Entry]) -> Report:
        """Write the whole archive."""
        now = datetime.now(UTC)
        head = {"format": _FORMAT, "version": _VERSION, "created": now.isoformat(), "lazypix": __version__}
        self._json("lazypix.json", json.dumps(head, indent=1).encode(), now)
        for image, state in entries:
            try:
                self._image(image, state)
            except LazypixError as error:
                self._tally.fail(image.ident, error)
        done = self._tally.report
        end = {"images": done.copied, "deleted": done.deleted, "variants": done.variants, "failed": done.failed}
        self._json("end.json", json.dumps(end).encode(), now)
        self._tar.finish()
        return self._tally.report

    def named(self, idents: Collection[str]) -> Iterator[Entry]:
        """Yield what is known of these images; one that is not there is told in the report."""
        rest = iter(idents)
        while some := list(islice(rest, _AT_ONCE)):
            found = self._library.catalog.entries(some)
            for ident in some:
                if ident in found and found[ident][1] in LASTING:
                    yield found[ident]
                else:
                    self._tally.fail(ident, UnknownImage(f"There is no image {ident}"))

    def _image(self, image: Image, state: State) -> None:
        if state in DELETED:
            self._deleted(image)
            return
        try:
            with read_original(self._library, image, self._library.incoming) as file:
                variants = self._library.catalog.variants.of(image.ident) if self._with_variants else []
                self._facts(image, state, variants)
                self._file(f"{image.ident}/origin.{by_name(image.format).extension}", file, image.created)
        except (BlobMissing, OriginalDamaged) as error:
            if self._library.catalog.states([image.ident]).get(image.ident, "gone") in DELETED:
                self._deleted(image)  # since it was listed
                return
            if isinstance(error, OriginalDamaged):
                self._library.originals.found_damaged(image)
            raise
        self._tally.add(copied=1)
        for variant in variants:
            self._variant(image.ident, variant)

    def _deleted(self, image: Image) -> None:
        self._facts(image, "deleted", [])
        self._tally.add(deleted=1)

    def _variant(self, ident: str, variant: StoredVariant) -> None:
        try:
            with read_variant(self._library, ident, variant, self._library.incoming) as file:
                self._file(f"{ident}/{variant.name}", file, variant.created)
        except (BlobMissing, OriginalDamaged) as error:
            log.warning("a variant of %s was left out: %s", ident, error)
        else:
            self._tally.add(variants=1)

    def _facts(self, image: Image, state: State, variants: list[StoredVariant]) -> None:
        data = write_facts(image, state, variants)
        if len(data) > _MOST_FACTS:
            raise TooLarge(f"What is known of {image.ident} has {len(data)} bytes; an archive takes {_MOST_FACTS}")
        self._json(f"{image.ident}/image.json", data, image.created)

    def _json(self, name: str, data: bytes, modified: datetime) -> None:
        self._tar.add(name, [data], size=len(data), modified=modified)

    def _file(self, name: str, file: Incoming, modified: datetime) -> None:
        with file.path.open("rb") as opened:
            pieces = iter(partial(opened.read, 1024 * 1024), b"")
            self._tar.add(name, pieces, size=file.size, modified=modified)
        self._tally.add(bytes=file.size)


@dataclass(slots=True, kw_only=True, eq=False)
class _Parcel:
    """What the archive holds of one image, as far as it was read."""

    image: Image
    state: State
    there: Entry | None
    rows: dict[str, StoredVariant]
    """The variants that are wanted, by name."""
    wanted: bool = True
    """Whether the original is needed."""
    original: Incoming | None = None
    trouble: LazypixError | None = None
    variants: list[tuple[StoredVariant, Incoming]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    files: ExitStack = field(default_factory=ExitStack)


class _WrongBytes(BadArchive):
    """A file of the archive is not what was told of it; the rest of the archive is not concerned."""


class _Import:
    """One import: the archive is read here, its images are taken in by a crew."""

    def __init__(self, library: Library, tally: Tally, *, trust: bool) -> None:
        self.tally = tally
        self._library = library
        self._trust = trust
        self._intake = Intake(library, follow=False)
        self._images = self._deleted = 0
        self._open: set[_Parcel] = set()

    def __enter__(self) -> _Import:
        return self

    def __exit__(self, *_: object) -> None:
        for parcel in self._open:  # with which nobody was concerned any more
            parcel.files.close()

    def run(self, file: BinaryIO, crew: Crew) -> None:
        """Read the whole archive."""
        parcel: _Parcel | None = None
        members = TarReader(file).members()
        self._check_head(next(members, None))
        for member in members:
            if member.name == "end.json" or member.name.endswith("/image.json"):
                if parcel is not None:
                    crew.give(partial(self._take, parcel))
                if member.name == "end.json":
                    self._check_end(member)
                    self._drain(members, file)
                    return
                parcel = self._begin(member)
            elif parcel is None or not member.name.startswith(f"{parcel.image.ident}/"):
                raise BadArchive(f"{member.name!r} in the archive does not belong to the image before it")
            else:
                self._file(parcel, member)
        raise BadArchive(f"The archive ends early, after {self._images} images: it has no end.json")

    def _check_head(self, member: Member | None) -> None:
        if member is None or member.name != "lazypix.json":
            raise BadArchive("Not an archive of images: it does not begin with lazypix.json")
        head = read_object(member.name, member.read(_MOST_FACTS))
        if (head.get("format"), head.get("version")) != (_FORMAT, _VERSION):
            raise BadArchive(f"lazypix.json names another format or version; accepted: {_FORMAT}, {_VERSION}")

    def _check_end(self, member: Member) -> None:
        end = read_object(member.name, member.read(_MOST_FACTS))
        if (end.get("images"), end.get("deleted")) != (self._images, self._deleted):
            raise BadArchive(f"Images are missing: end.json tells of {end.get('images')}, there are {self._images}")

    def _drain(self, members: Iterator[Member], file: BinaryIO) -> None:
        """Read what pads the end, so that whoever writes into a pipe is not stopped by its closing."""
        for member in members:
            raise BadArchive(f"{member.name!r} in the archive comes behind its end")
        for _ in islice(iter(partial(file.read, 10240), b""), _DRAINED):
            pass

    def _begin(self, member: Member) -> _Parcel:
        image, state, rows = read_facts(member.name, member.read(_MOST_FACTS))
        if state in DELETED:
            self._deleted += 1
        else:
            self._images += 1
        there = self._intake.known([image.ident]).get(image.ident)
        parcel = _Parcel(image=image, state=state, there=there, rows={row.name: row for row in rows})
        self._open.add(parcel)
        try:
            step = next_step(image, state, there, follow=False)
            parcel.wanted = step not in ("skip", "bury", "delete")
        except LazypixError as error:
            parcel.trouble, parcel.wanted = error, False
        if not self._trust or state != "ready" or parcel.trouble is not None:
            parcel.rows = {}
        elif parcel.rows and there is not None:
            stored = stored_variants(self._library, image.ident)
            parcel.rows = {name: row for name, row in parcel.rows.items() if name not in stored}
        return parcel

    def _file(self, parcel: _Parcel, member: Member) -> None:
        name = member.name.partition("/")[2]
        if name in parcel.seen:
            raise BadArchive(f"{member.name!r} is in the archive twice")
        parcel.seen.add(name)
        if name == f"origin.{by_name(parcel.image.format).extension}":
            if parcel.wanted:
                try:
                    parcel.original = self._received(parcel, member, parcel.image.size, parcel.image.sha256)
                except (_WrongBytes, TooLarge) as error:
                    parcel.trouble = error
        elif (row := parcel.rows.get(name)) is not None:
            try:
                parcel.variants.append((row, self._received(parcel, member, row.size, row.sha256)))
            except (_WrongBytes, TooLarge) as error:
                log.warning("a variant was not taken in: %s", error)
        elif "/" in name or name.startswith("origin."):
            raise BadArchive(f"{member.name!r} is not a name in an archive of images")

    def _received(self, parcel: _Parcel, member: Member, size: int, sha256: str | None) -> Incoming:
        """Write a member to a file, if it is what was told of it."""
        limit = self._library.limits.max_bytes
        if member.size > limit:
            raise TooLarge(f"{member.name} has {member.size} bytes, over the limit of {limit}")
        wrong = _WrongBytes(f"{member.name} does not have the bytes of which image.json tells")
        if member.size != size:
            raise wrong
        file = parcel.files.enter_context(self._library.incoming.new())
        for piece in member.pieces:
            file.write(piece)
        file.finish()
        if sha256 not in (None, file.sha256):
            raise wrong
        return file

    def _take(self, parcel: _Parcel) -> None:
        """Take in one image, and count what came of it."""
        try:
            if parcel.trouble is not None:
                raise parcel.trouble
            image = self._inspected(parcel) if parcel.wanted else parcel.image
            outcome = self._intake.take(image, parcel.state, parcel.there, partial(_original, parcel))
            for row, file in parcel.variants:
                kept = replace(row, sha256=file.sha256)
                if self._library.shelf.place(image.ident, kept, file.path):
                    self.tally.add(variants=1, bytes=file.size)
        except StoreFull:
            raise
        except LazypixError as error:
            self.tally.fail(parcel.image.ident, error)
        else:
            self.tally.add(**{outcome: 1}, bytes=image.size if outcome == "copied" else 0)
        finally:
            parcel.files.close()
            self._open.discard(parcel)

    def _inspected(self, parcel: _Parcel) -> Image:
        """Return the image with what its bytes say of it."""
        if parcel.original is None:
            raise BadArchive(f"The archive does not have the original of {parcel.image.ident}")
        limits = self._library.limits
        if not self._trust:
            probe = self._library.engine.inspect(str(parcel.original.path), limits).result()
            return replace(parcel.image, probe=probe)
        pixels = parcel.image.probe.width * parcel.image.probe.height * parcel.image.frames
        if pixels > limits.max_pixels:
            raise TooLarge(f"{parcel.image.ident} has {pixels} pixels, over the limit of {limits.max_pixels}")
        with parcel.original.path.open("rb") as file:
            found = readable(file.read(SNIFF_BYTES)).name
        if found != parcel.image.format:
            raise UnsupportedImage(f"The original of {parcel.image.ident} is {found}, not {parcel.image.format}")
        return parcel.image


@contextmanager
def _original(parcel: _Parcel) -> Iterator[Path]:
    """Give the original once; it may be moved away."""
    if parcel.original is None or not parcel.original.path.exists():
        raise Busy(f"{parcel.image.ident} was changed while it was taken in; import the archive again")
    yield parcel.original.path


def _total(library: Library) -> int:
    numbers = library.catalog.numbers()
    return sum(numbers.get(state, 0) for state in LASTING)
