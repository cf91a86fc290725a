"""API keys: what they may do. Pure."""

from __future__ import annotations

from typing import Literal

Scope = Literal["upload", "delete", "admin"]
"""What a key may do: store images and order sizes; delete and drop; and see all that there is."""
SCOPES: tuple[Scope, ...] = ("upload", "delete", "admin")
