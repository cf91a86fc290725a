"""Files that are being received: written to a temporary place, hashed and counted on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from lazypix.errors import StoreFailed, StoreFull, TooLarge

_SUFFIX = ".part"
_COPY_BYTES = 1024 * 1024


class Incoming:
    """One file on its way in. A context manager: what was not moved away is removed at the end.

    Not for several threads at once.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.size = 0
        """Bytes written."""
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._file = path.open("xb")

    @property
    def sha256(self) -> str:
        """Of all bytes written, 64 hex digits."""
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`.

        Raises:
            TooLarge: this goes over the limit; nothing of `data` was written.
            StoreFull: no space left.
            StoreFailed: it could not be written.
        """
        if self.size + len(data) > self._max_bytes:
            raise TooLarge(f"The image is over the limit of {self._max_bytes} bytes ({self._max_bytes >> 20} MiB)")
        try:
            self._file.write(data)
        except OSError as error:
            raise _failure(error) from error
        self._hash.update(data)
        self.size += len(data)

    def copy(self, source: bytes | bytearray | memoryview | str | Path | BinaryIO) -> None:
        """Append bytes, the content of the file at a path, or a binary file that is read to its end; as `write`."""
        if isinstance(source, bytes | bytearray | memoryview):
            self.write(memoryview(source).cast("B"))
        elif isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                self.copy(file)
        else:
            while data := source.read(_COPY_BYTES):
                self.write(data)

    def finish(self) -> None:
        """Hand everything written to the operating system; the file is complete."""
        try:
            self._file.close()
        except OSError as error:
            raise _failure(error) from error

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove the file, if it was not moved away."""
        with suppress(OSError):
            self._file.close()
        with suppress(FileNotFoundError):
            self.path.unlink()


def _failure(error: OSError) -> StoreFull | StoreFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"No space left to receive the image ({error.strerror})")
    return StoreFailed(f"The image cannot be received ({error.strerror})")


class IncomingFolder:
    """Where incoming files lie. Best on the store's own file system: then storing one is a rename."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def new(self, *, max_bytes: int | None = None) -> Incoming:
        """Begin a new incoming file; without `max_bytes` the folder's limit holds."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        try:
            return Incoming(self._folder / f"{uuid.uuid4().hex}{_SUFFIX}", limit)
        except OSError as error:
            raise StoreFailed(f"Cannot receive anything ({error.strerror})") from error

    def sweep(self, *, older_than_s: float = 0) -> int:
        """Remove files that were last written to this long ago; return how many."""
        latest, removed = time.time() - older_than_s, 0
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                if entry.name.endswith(_SUFFIX) and entry.stat().st_mtime <= latest:
                    Path(entry.path).unlink()
                    removed += 1
        return removed
