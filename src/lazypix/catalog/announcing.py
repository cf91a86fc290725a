"""Announcing, within the transaction that changes an image, that what is remembered of it is not true any more.

So a change that was committed is always announced, and one that was rolled back never. The room `changes` listens.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, insert, text

from lazypix.catalog.tables import changes

CHANNEL = "lazypix_changes"
"""Of PostgreSQL's NOTIFY, whose payload is the ident."""
KEPT = 1000
"""How many announcements a SQLite database keeps: who reads them later than that has missed some."""

_NOTIFY = text("SELECT pg_notify(:channel, ident) FROM unnest(CAST(:idents AS text[])) AS ident")


def announce(connection: Connection, idents: Collection[str]) -> None:
    """Announce changes; they are heard when the connection's transaction is committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NOTIFY, {"channel": CHANNEL, "idents": list(idents)})
        return
    newest = 0
    for ident in idents:
        (newest,) = connection.execute(insert(changes).values(ident=ident)).inserted_primary_key or (0,)
    connection.execute(delete(changes).where(changes.c.number <= newest - KEPT))
