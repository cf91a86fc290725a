"""Signatures of messages: HMAC-SHA256 over id, time and body, as receivers' libraries verify them. Pure.

Source: the Standard Webhooks specification, https://github.com/standard-webhooks/standard-webhooks
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
"""The headers that hold them."""
TOLERANCE_S = 300
"""How old, or how far ahead, a message may be."""
SHORTEST_SECRET = 24
"""Bytes of the shortest secret that is good enough."""

_PREFIX, _VERSION = "whsec_", "v1"


def secret_bytes(text: str) -> bytes:
    """Return the bytes of a secret: what stands in base64 behind `whsec_`, else the text's own.

    Raises:
        ValueError: it is too short, or is not base64 although it says so.
    """
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except binascii.Error:
        raise ValueError(f"what stands behind {_PREFIX} is not base64") from None
    secret = secret or text.encode()
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(f"a secret must have at least {SHORTEST_SECRET} bytes")
    return secret


def sign(secrets: Sequence[bytes], *, id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message, with a signature of each secret: several, while they are changed, or none."""
    signatures = [f"{_VERSION},{_mac(secret, id, str(timestamp_s), body)}" for secret in secrets]
    headers = {ID: id, TIMESTAMP: str(timestamp_s)}
    return headers | {SIGNATURE: " ".join(signatures)} if signatures else headers


def is_signed(
    secrets: Sequence[bytes], *, id: str, timestamp: str, signature: str, body: bytes, now_s: float
) -> bool:
    """Tell whether a message was signed with one of the secrets, about now. In constant time."""
    if not timestamp.isascii() or not timestamp.isdecimal() or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    given = [part.encode("utf-8", "replace") for part in signature.split(" ")]
    wanted = [f"{_VERSION},{_mac(secret, id, timestamp, body)}".encode() for secret in secrets]
    matches = [hmac.compare_digest(one, other) for one in given for other in wanted]
    return any(matches)


def _mac(secret: bytes, id: str, timestamp: str, body: bytes) -> str:
    content = f"{id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
