"""How a key is spelled in a server that takes only short and plain ones."""

from __future__ import annotations

import hashlib
import re

LONGEST_BYTES = 250
"""Of a key with its prefix. Source: memcached, doc/protocol.txt, "Keys"."""

PREFIX_RULE = "up to 64 of the characters A-Z a-z 0-9 . _ : / -"
_PREFIX = re.compile(r"[A-Za-z0-9._:/-]{0,64}", re.ASCII)
# Visible ASCII. One that begins with # is hashed too: so no key looks like the hash of another.
_PLAIN = re.compile(r"[!\"$-~][!-~]*", re.ASCII)


def is_prefix(text: str) -> bool:
    """Tell whether every server takes `text` at the beginning of keys; `PREFIX_RULE` says it in words."""
    return _PREFIX.fullmatch(text) is not None


def plain_key(prefix: str, key: str) -> str:
    """Return `prefix` and `key`, or a hash of the key when it is too long, empty, or holds odd characters.

    Different keys stay different.
    """
    if _PLAIN.fullmatch(key) and len(prefix) + len(key) <= LONGEST_BYTES:
        return prefix + key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
    return f"{prefix}#{digest}"
