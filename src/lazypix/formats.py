"""The table of image formats: how each is recognised, named, read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lazypix.errors import UnsupportedImage

SNIFF_BYTES = 64
"""How many leading bytes `sniff` needs to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One image format and what can be done with it here.

    `default_quality` is on the encoder's own 1..100 scale (None: the format has no such number);
    the numbers of two formats do not mean the same.
    """

    name: str
    mime: str
    extensions: tuple[str, ...]
    magic: Callable[[bytes], bool]
    loads: bool = False
    saves: bool = False
    animates: bool = False
    alpha: bool = False
    lossless: bool = False
    default_quality: int | None = None
    max_side: int = 65_500
    """Pixels of width and height that the format can hold (here)."""

    @property
    def extension(self) -> str:
        """The canonical extension, without the dot."""
        return self.extensions[0]


def _starts(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(prefixes)


def _webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _brands(*brands: bytes) -> Callable[[bytes], bool]:
    """Recognise an ISO base media file by its major or compatible brands.

    Source: ISO/IEC 14496-12, 4.3 (file type box).
    """

    def magic(head: bytes) -> bool:
        if head[4:8] != b"ftyp":
            return False
        end = min(int.from_bytes(head[:4], "big"), len(head))
        found = {head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))}
        return not found.isdisjoint(brands)

    return magic


def _svg(head: bytes) -> bool:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<svg", b"<?xml"))


FORMATS: tuple[Format, ...] = (
    Format(
        name="jpg", mime="image/jpeg", extensions=("jpg", "jpeg", "jpe"), magic=_starts(b"\xff\xd8\xff"),
        loads=True, saves=True, default_quality=80,
    ),
    Format(
        name="png", mime="image/png", extensions=("png", "apng"), magic=_starts(b"\x89PNG\r\n\x1a\n"),
        loads=True, saves=True, alpha=True, lossless=True,
    ),
    Format(
        name="gif", mime="image/gif", extensions=("gif",), magic=_starts(b"GIF87a", b"GIF89a"),
        loads=True, saves=True, animates=True, alpha=True,
    ),
    Format(
        name="webp", mime="image/webp", extensions=("webp",), magic=_webp,
        loads=True, saves=True, animates=True, alpha=True, lossless=True, default_quality=80, max_side=16_383,
    ),
    Format(
        name="avif", mime="image/avif", extensions=("avif",), magic=_brands(b"avif", b"avis"),
        loads=True, saves=True, alpha=True, lossless=True, default_quality=60, max_side=16_384,
    ),
    Format(
        name="tiff", mime="image/tiff", extensions=("tiff", "tif"),
        magic=_starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), loads=True,
    ),
    # Recognised, so that the error can name them.
    Format(
        name="heic", mime="image/heic", extensions=("heic", "heif"),
        magic=_brands(b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"),
    ),
    Format(
        name="jxl", mime="image/jxl", extensions=("jxl",),
        magic=_starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ),
    Format(name="jp2", mime="image/jp2", extensions=("jp2", "j2k"), magic=_starts(b"\0\0\0\x0cjP  \r\n\x87\n")),
    Format(name="bmp", mime="image/bmp", extensions=("bmp",), magic=_starts(b"BM")),
    Format(name="ico", mime="image/x-icon", extensions=("ico",), magic=_starts(b"\0\0\1\0")),
    Format(name="psd", mime="image/vnd.adobe.photoshop", extensions=("psd",), magic=_starts(b"8BPS")),
    Format(name="pdf", mime="application/pdf", extensions=("pdf",), magic=_starts(b"%PDF-")),
    Format(name="svg", mime="image/svg+xml", extensions=("svg",), magic=_svg),
)  # fmt: skip

READABLE = tuple(f.name for f in FORMATS if f.loads)
"""Names of the formats that can be uploaded."""
WRITABLE = tuple(f.name for f in FORMATS if f.saves)
"""Names of the formats that variants can have."""

_BY_NAME = {f.name: f for f in FORMATS}
_BY_EXTENSION = {extension: f for f in FORMATS for extension in f.extensions}


def by_name(name: str) -> Format:
    """Return the format called `name`; a name that is not in the table is a programmer's mistake."""
    return _BY_NAME[name]


def by_extension(extension: str) -> Format | None:
    """Return the format that uses this file extension (any case, no dot), or None."""
    return _BY_EXTENSION.get(extension.lower())


def sniff(head: bytes) -> Format | None:
    """Recognise a format by the first `SNIFF_BYTES` bytes of a file, or return None."""
    return next((f for f in FORMATS if f.magic(head)), None)


def readable(head: bytes) -> Format:
    """Recognise a format that can be read.

    Raises:
        UnsupportedImage: the bytes are of no known format, or of one that cannot be read here.
    """
    accepted = ", ".join(READABLE)
    found = sniff(head)
    if found is None:
        raise UnsupportedImage(f"Not an image that can be read; accepted: {accepted}")
    if not found.loads:
        raise UnsupportedImage(f"A {found.name} file cannot be read here; accepted: {accepted}")
    return found
