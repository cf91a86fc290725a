"""Plain tar as a stream: written with files only, and read with suspicion.

A name is only read, never used as a path; what is no plain file is refused, and nothing is believed that a header
says of a size.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import BinaryIO

from lazypix.errors import BadArchive

_BLOCK, _RECORD, _PIECE = 512, 10240, 1024 * 1024
_LONGEST_HEADER = 64 * 1024
_KINDS = {
    tarfile.LNKTYPE: "hard link", tarfile.SYMTYPE: "symbolic link", tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "pipe", tarfile.GNUTYPE_SPARSE: "sparse file",
}  # fmt: skip


class TarWriter:
    """Writes an archive to a binary file, front to back. Who opened the file closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0

    def add(self, name: str, pieces: Iterable[bytes], *, size: int, modified: datetime) -> None:
        """Write a member; the pieces are `size` bytes."""
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = size, int(modified.timestamp()), 0o644
        self._write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        before = self._written
        for piece in pieces:
            self._write(piece)
        assert self._written - before == size, "the header says another size"
        self._write(bytes(-size % _BLOCK))

    def finish(self) -> None:
        """Write the end."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._written % _RECORD))
        self._file.flush()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._written += len(data)


class Member:
    """A file in an archive. Its bytes are read, or skipped, before the next member is asked for."""

    def __init__(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        self.name = name
        self.size = size
        self.pieces = pieces
        """Its bytes, once."""

    def read(self, most: int) -> bytes:
        """Return all bytes.

        Raises:
            BadArchive: it has more than `most`, or ends early.
        """
        if self.size > most:
            raise BadArchive(f"{self.name} has {self.size} bytes; accepted: {most}")
        return b"".join(self.pieces)


class TarReader:
    """Reads an archive from a binary file, front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def members(self) -> Iterator[Member]:
        """Yield the members up to the end of the archive, or of the file.

        Raises:
            BadArchive: it is no tar archive, ends in the middle of a member, or holds what is no plain file.
        """
        while (found := self._next_file()) is not None:
            name, size = found
            pieces = self._pieces(size)
            yield Member(name, size, pieces)
            for _ in pieces:  # what was not read
                pass
            self._exactly(-size % _BLOCK)

    def _next_file(self) -> tuple[str, int] | None:
        name: str | None = None
        size: int | None = None
        while block := self._block():
            header = _parsed(block, self._position - _BLOCK)
            if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
                data = self._extension(header)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif header.type == tarfile.XHDTYPE:
                    name, size = _overridden(data, name, size)
                continue
            shown = header.name if name is None else name
            if header.isdir() and header.size == 0:  # of one that was unpacked, and packed again
                name = size = None
                continue
            if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                kind = _KINDS.get(header.type, "thing of an unknown kind")
                raise BadArchive(f"{shown!r} in the archive is a {kind}; only plain files are accepted")
            return _checked(shown), header.size if size is None else size
        return None

    def _block(self) -> bytes | None:
        """Return the next header, or None at the end."""
        first = self._file.read(1)
        if not first:
            return None
        self._position += 1
        block = first + self._exactly(_BLOCK - 1)
        return block if block.strip(b"\0") else None

    def _extension(self, header: tarfile.TarInfo) -> bytes:
        if not 0 <= header.size <= _LONGEST_HEADER:
            raise BadArchive(f"A header of the archive has {header.size} bytes; accepted: {_LONGEST_HEADER}")
        data = self._exactly(header.size)
        self._exactly(-header.size % _BLOCK)
        return data

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._exactly(min(size, _PIECE))
            size -= len(piece)
            yield piece

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self._file.read(size - len(found))
            if not piece:
                raise BadArchive(f"The archive ends early, after {self._position + len(found)} bytes")
            found += piece
        self._position += size
        return bytes(found)


def _parsed(block: bytes, position: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadArchive(f"Not a tar archive, or a damaged one ({error}, at byte {position})") from None
    if header.size < 0:
        raise BadArchive(f"{header.name!r} in the archive has a negative size")
    return header


def _overridden(data: bytes, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    """Read a pax header: records of length, space, key=value and a line feed."""
    while data:
        digits, _, _ = data.partition(b" ")
        if len(digits) > 6 or not digits.isdigit() or not len(digits) + 3 <= int(digits) <= len(data):
            raise BadArchive("A header of the archive is malformed")
        record, data = data[len(digits) + 1 : int(digits)], data[int(digits) :]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals or key.startswith(b"GNU.sparse"):
            raise BadArchive("A header of the archive is malformed, or of a sparse file")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size":
            if len(value) > 18 or not value.isdigit():
                raise BadArchive("A header of the archive has a malformed size")
            size = int(value)
    return name, size


def _checked(name: str) -> str:
    plain = name.removeprefix("./")
    if plain.startswith("/") or ".." in plain.split("/") or not plain.isprintable():
        raise BadArchive(f"{name!r} in the archive is not accepted as a name: it leads somewhere else")
    return plain
