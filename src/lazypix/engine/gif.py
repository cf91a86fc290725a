"""Whether a GIF is all there: libvips takes the frames it finds and does not miss the rest."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_HEADER_BYTES, _IMAGE_BYTES = 13, 9
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_STRAY = 0x00  # some encoders leave zeros between blocks, and every viewer skips them
_HAS_COLOURS = 0x80


def is_whole(path: str) -> bool:
    """Follow the blocks of the GIF at `path`, without decoding, and tell whether they lead to the trailer.

    Source: Graphics Interchange Format, version 89a, appendix B.
    """
    with Path(path).open("rb") as file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return False
        file.seek(_colours(header[10]), 1)
        while (introducer := _byte(file)) in (_EXTENSION, _IMAGE, _STRAY):
            if introducer == _STRAY:
                continue
            if introducer == _IMAGE:
                descriptor = file.read(_IMAGE_BYTES)
                if len(descriptor) < _IMAGE_BYTES:
                    return False
                file.seek(_colours(descriptor[8]), 1)
            file.seek(1, 1)  # the extension's label, or the image's code size
            if not _skip_blocks(file):
                return False
        return introducer == _TRAILER


def _colours(flags: int) -> int:
    """Return the bytes of the colour table that a packed field announces."""
    return 3 << (flags & 0x07) + 1 if flags & _HAS_COLOURS else 0


def _skip_blocks(file: BinaryIO) -> bool:
    """Skip data sub-blocks up to their terminator; False when the file ends before."""
    while size := _byte(file):
        file.seek(size, 1)
    return size == 0


def _byte(file: BinaryIO) -> int | None:
    data = file.read(1)
    return data[0] if data else None
