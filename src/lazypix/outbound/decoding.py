"""Bodies that a server compressed although it was asked not to: undone piece by piece, never more than is wanted."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from lazypix.errors import SourceFailed

ACCEPTED = ("gzip", "x-gzip", "deflate")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_PIECE_BYTES = 64 * 1024


def decoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield a body without its `Content-Encoding`, in pieces of at most 64 KiB if it has one.

    Nothing is decoded before it is asked for: who counts what comes, and stops, ends a bomb.

    Raises:
        SourceFailed: the encoding is not known, or the body is not what it says, or ends too early.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        yield from pieces
        return
    if name not in ACCEPTED:
        raise SourceFailed(f"The source is compressed as {encoding[:64]!r}; accepted: {', '.join(ACCEPTED)}, or not")
    inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        for piece in pieces:
            while piece and not inflating.eof:
                yield inflating.decompress(piece, _PIECE_BYTES)
                piece = inflating.unconsumed_tail
        while rest := inflating.decompress(inflating.unconsumed_tail, _PIECE_BYTES):
            yield rest
    except zlib.error:
        raise SourceFailed(f"The source is not what its header says: Content-Encoding: {name}") from None
    if not inflating.eof:
        raise SourceFailed(f"The source ends in the middle of its {name} data")
