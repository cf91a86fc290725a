"""Names of files as clients give them: made harmless, and held against what the file is."""

from __future__ import annotations

import mimetypes
from email.message import Message
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

from lazypix.errors import UnsupportedImage
from lazypix.formats import Format, by_extension, by_name

_LONGEST = 255
_LONGEST_HEADER = 2048
_PROGRAMS = ("exe", "dll")
_SAYS_NOTHING = ("application/octet-stream",)


def base_name(filename: str | None) -> str | None:
    """Return the last part of a name, at most 255 characters, all of them Unicode; None when nothing is left.

    Without NUL, which PostgreSQL does not store.
    """
    name = PurePath((filename or "").replace("\\", "/").replace("\0", "")).name[-_LONGEST:]
    return name.encode("utf-8", errors="replace").decode() or None


def check_extension(filename: str | None, format_name: str) -> None:
    """Refuse a name whose extension says another type than the bytes are; an extension that says nothing is fine.

    Raises:
        UnsupportedImage: names both, and the extensions that are accepted.
    """
    found = by_name(format_name)
    extension = PurePath(filename or "").suffix[1:].lower()
    claimed = mimetypes.types_map.get(f".{extension}")
    if claimed is not None and claimed.startswith(_SAYS_NOTHING) and extension not in _PROGRAMS:
        claimed = None
    if claimed is None and (known := by_extension(extension)) is not None:
        claimed = known.mime
    if claimed is None or extension in found.extensions or claimed == found.mime:
        return
    accepted = ", ".join(f".{e}" for e in found.extensions)
    raise UnsupportedImage(f"The file is named .{extension} but is a {found.name} image; accepted for it: {accepted}")


def downloaded_name(url: str, disposition: str, found: Format | None) -> str | None:
    """Return a name for what was downloaded: by its `Content-Disposition`, else by the path of its URL.

    Neither is anybody's word on the format: many servers send WebP for `photo.png`. The extension is that of the
    format which was `found`.

    Source: RFC 6266.
    """
    name = _named_by(disposition) or base_name(unquote(urlsplit(url).path, errors="replace"))
    if name is None or found is None or PurePath(name).suffix[1:].lower() in found.extensions:
        return name
    return f"{PurePath(name).stem[: _LONGEST - 10]}.{found.extension}"


def _named_by(disposition: str) -> str | None:
    """Return the name in a `Content-Disposition`; None when it has none that can be read."""
    header = Message()
    header["content-disposition"] = disposition[:_LONGEST_HEADER]  # reading one takes time by its square
    try:
        return base_name(header.get_filename())
    except UnicodeError:  # an encoding that was named, such as Punycode, and is not what stands there
        return None
