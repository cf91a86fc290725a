"""The rows of sources: which image a URL's was at last, and what its server said of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from lazypix.catalog.database import Database
from lazypix.catalog.tables import sources
from lazypix.catalog.values import microseconds, moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an original was downloaded from."""

    url: str
    ident: str
    """Of the image that was there at last; it may be deleted."""
    landed: str
    """The URL behind all redirects; `etag` and `last_modified` are about what is there."""
    etag: str | None
    last_modified: str | None
    checked: datetime
    """When it was last downloaded, or found unchanged."""


class SourceRows:
    """The sources' table; errors as `Catalog`'s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, url: str) -> Source | None:
        """Return what is known of a URL, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(sources).where(sources.c.digest == digest_of(url))).one_or_none()
        if row is None:
            return None
        return Source(
            url=row.url, ident=row.ident, landed=row.landed, etag=row.etag, last_modified=row.last_modified,
            checked=moment(row.checked_us),
        )  # fmt: skip

    def put(self, source: Source) -> None:
        """Record a source; what was known of its URL is forgotten."""
        row: dict[str, Any] = {
            "digest": digest_of(source.url), "url": source.url, "ident": source.ident, "landed": source.landed,
            "etag": source.etag, "last_modified": source.last_modified, "checked_us": microseconds(source.checked),
        }  # fmt: skip
        insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(sources)
        changed = {name: insert.excluded[name] for name in row if name not in ("digest", "url")}
        with self._database.writing() as connection:
            connection.execute(insert.values(row).on_conflict_do_update(index_elements=["digest"], set_=changed))

    def touch(self, url: str, ident: str, checked: datetime) -> None:
        """Record that the image of a URL was found unchanged, unless it is another one by now."""
        mine = update(sources).where(sources.c.digest == digest_of(url), sources.c.ident == ident)
        with self._database.writing() as connection:
            connection.execute(mine.values(checked_us=microseconds(checked)))


def digest_of(url: str) -> str:
    """Return what stands for a URL, which may be long: 64 hex digits."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
