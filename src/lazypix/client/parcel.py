"""What is being uploaded: bytes that can be read again from any place, and what is said of them."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lazypix.originals.uploading import as_json

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are sent; the first number never gets less."""
Source = bytes | bytearray | memoryview | str | Path | BinaryIO

_PIECE_BYTES = 256 * 1024
_IN_MEMORY_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """An original on its way."""

    file: BinaryIO
    size: int
    """Bytes."""
    sha256: str
    ident: str
    """Chosen here, so that an upload that is sent again is known again."""
    filename: str | None
    metadata: Mapping[str, Any]

    @property
    def fields(self) -> dict[str, str]:
        """What is said of it, by name."""
        given = {"ident": self.ident}
        if self.filename:
            given["filename"] = self.filename
        if self.metadata:
            given["metadata"] = json.dumps(self.metadata)
        return given

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield the bytes from `start`, `length` of them."""
        self.file.seek(start)
        while length > 0 and (data := self.file.read(min(_PIECE_BYTES, length))):
            length -= len(data)
            yield data


class Told:
    """Tells of progress, which never goes back, whatever is sent again."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._most = -1

    def __call__(self, sent: int) -> None:
        """Tell how many bytes are sent."""
        if self._progress is not None and sent > self._most:
            self._most = sent
            self._progress(sent, self._total)

    def following(self, pieces: Iterator[bytes], start: int = 0) -> Iterator[bytes]:
        """Yield pieces, and tell of each one when the next is asked for."""
        for data in pieces:
            yield data
            start += len(data)
            self(start)


@contextmanager
def packed(
    source: Source, *, ident: str, filename: str | None, metadata: Mapping[str, Any] | None
) -> Iterator[Parcel]:
    """Give a parcel while it is used; what can be read only once is kept in a temporary file.

    Raises:
        BadUpload: `metadata` cannot be kept as JSON.
        OSError: the source cannot be read.
    """
    kept = as_json({} if metadata is None else metadata)
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield _parcel(file, ident, filename, kept)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield _parcel(io.BytesIO(source), ident, filename, kept)
    else:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spooled:
            while data := source.read(_PIECE_BYTES):
                spooled.write(data)
            spooled.seek(0)
            yield _parcel(spooled, ident, filename, kept)  # type: ignore[arg-type]  # it is one, but for the types


def _parcel(file: BinaryIO, ident: str, filename: str | None, metadata: Mapping[str, Any]) -> Parcel:
    digest, size = hashlib.sha256(), 0
    while data := file.read(_PIECE_BYTES):
        digest.update(data)
        size += len(data)
    return Parcel(
        file=file, size=size, sha256=digest.hexdigest(), ident=ident, filename=filename, metadata=metadata
    )  # fmt: skip
