"""Whether a PNG is all there: libvips has all pixels before the end, and does not miss the rest."""

from __future__ import annotations

from pathlib import Path

_SIGNATURE_BYTES, _HEADER_BYTES, _CHECKSUM_BYTES = 8, 8, 4
_END = b"IEND"


def is_whole(path: str) -> bool:
    """Follow the chunks of the PNG at `path`, without decoding, and tell whether they lead to a complete end chunk.

    Source: W3C Portable Network Graphics (third edition), 5.3 and 11.2.5.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        position = _SIGNATURE_BYTES
        while position + _HEADER_BYTES <= size:
            file.seek(position)
            header = file.read(_HEADER_BYTES)
            position += _HEADER_BYTES + int.from_bytes(header[:4], "big") + _CHECKSUM_BYTES
            if header[4:] == _END:
                return position <= size
        return False
