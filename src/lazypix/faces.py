"""What every face answers alike, besides the images: raw paths, preflights, refusals. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import quote, unquote_to_bytes

from lazypix.dialects.native import MOUNT
from lazypix.dialects.remote import SERVED
from lazypix.errors import MethodNotAllowed, NotFound
from lazypix.http import Answer, envelope, error_answer

READING = ("GET", "HEAD")
"""The methods that images are asked for with."""
ALLOWED = ("GET", "HEAD", "OPTIONS")
"""The methods of an image where nothing can be written."""

# All that may stand in a path's segment as it is. Source: RFC 3986, 3.3 (pchar).
_PLAIN = "/:@!$&'()*+,;=~"

BROKEN = envelope(500, "Something went wrong on our side; it is in the log")
"""The answer to a request that met a mistake of ours."""


def below(path: str, prefix: str) -> str | None:
    """Return what stands in a raw path behind a prefix; None when it is not there.

    The prefix is decoded, and written as Latin-1, a character for a byte: in the path it may be quoted in any way.
    """
    if not prefix:
        return path
    begin = re.match(f"(?:%[0-9A-Fa-f]{{2}}|.){{{len(prefix)}}}", path, re.DOTALL)
    if begin is None or decoded(begin.group()) != prefix or path[begin.end() : begin.end() + 1] not in ("", "/"):
        return None
    return path[begin.end() :]


def decoded(path: str) -> str:
    """Decode a raw path; the result is written as Latin-1, a character for a byte."""
    return unquote_to_bytes(path.encode("latin-1", "replace")).decode("latin-1")


def quoted(path: str) -> str:
    """Quote a path that was decoded (Latin-1, a character for a byte), so that our own addresses come out again."""
    return quote(path.encode("latin-1", "replace"), safe=_PLAIN)


def is_for_image(method: str, path: str) -> bool:
    """Tell whether `Delivery` answers this; `path` is raw, and below the mount."""
    return method in READING and decoded(path).startswith(SERVED)


def preflight(methods: tuple[str, ...] = ALLOWED) -> Answer:
    """Return what browsers are told before they let pages of other sites ask. Source: Fetch, 3.3."""
    headers = (
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-allow-headers", b"authorization, content-type, range, if-none-match"),
        (b"access-control-max-age", b"86400"),
    )
    return Answer(status=204, headers=headers)


def not_allowed(method: str, allowed: tuple[str, ...] = ALLOWED) -> Answer:
    """Return the 405 that names what is allowed. Source: RFC 9110, 15.5.6 and 10.2.1."""
    accepted = ", ".join(allowed)
    refused = error_answer(MethodNotAllowed(f"{method} is not possible here; accepted: {accepted}"))
    return replace(refused, headers=(*refused.headers, (b"allow", accepted.encode())))


def besides_images(method: str, path: str) -> Answer:
    """Answer what `Delivery` does not, in a face that serves images and nothing else."""
    if method == "OPTIONS":
        return preflight()
    if decoded(path).startswith(SERVED):
        return not_allowed(method)
    return error_answer(NotFound(f"Nothing is served at {path[:200]}; images are below {MOUNT}"))
