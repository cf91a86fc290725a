"""The rows of stored variants: written before the blob is, so that every variant in the store has one."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, select, tuple_, update

from lazypix.catalog.database import Database
from lazypix.catalog.jobs import JobRows, NewJob
from lazypix.catalog.tables import images, variants
from lazypix.catalog.values import Refused, StoredVariant, microseconds, moment

_PAGE = 1000

Name = tuple[str, str, str]
"""Ident, stem and format: what names one variant."""


class VariantRows:
    """The variants' table; errors as `Catalog`'s."""

    def __init__(self, database: Database, jobs: JobRows) -> None:
        self._database = database
        self._jobs = jobs

    def add(self, rows: Sequence[tuple[str, StoredVariant]]) -> Refused:
        """Record variants that are about to be stored: pairs of ident and variant.

        A row that is there is brought up to date, unless its fence is greater. Return what was refused: nothing is
        recorded of it, and nothing must be stored.
        """
        idents = {ident for ident, _ in rows}
        with self._database.writing() as connection:
            ready = select(images.c.ident).where(images.c.ident.in_(idents), images.c.state == "ready")
            # Locked until the commit, so that no deletion passes between the look and the rows (SQLite has one
            # writer at a time anyway).
            alive = set(connection.execute(ready.with_for_update(read=True)).scalars())
            values = {name_of(ident, v): _row(ident, v) for ident, v in rows if ident in alive}
            if values:
                in_order = [values[name] for name in sorted(values)]  # two writers lock rows in one order
                changing = ("size", "sha256", "created_us", "used_us")
                self._database.upsert(connection, variants, in_order, changing, fence="fence")
            late = self._later(connection, {name: row["fence"] for name, row in values.items() if row["fence"]})
        return Refused(gone=frozenset(idents - alive), late=late)

    def _later(self, connection: Connection, fences: dict[Name, int]) -> dict[Name, int]:
        """Return those whose rows have a greater fence; they were not changed, and are locked until the commit."""
        if not fences:
            return {}
        query = select(*variants.primary_key, variants.c.fence).where(_key().in_(sorted(fences)))
        found = {(row.ident, row.stem, row.format): int(row.fence) for row in connection.execute(query)}
        return {name: fence for name, fence in found.items() if fence > fences[name]}

    def of(self, ident: str) -> list[StoredVariant]:
        """Return the recorded variants of an image, by name."""
        query = select(variants).where(variants.c.ident == ident).order_by(variants.c.stem, variants.c.format)
        with self._database.reading() as connection:
            return [_variant(row) for row in connection.execute(query)]

    def is_wanted(self, name: Name) -> bool:
        """Tell whether a variant has a row, and its image is not deleted."""
        there = images.c.state.in_(("ready", "trashed"))
        query = select(variants.c.ident).join(images, images.c.ident == variants.c.ident)
        with self._database.reading() as connection:
            return connection.execute(query.where(_key() == tuple_(*name), there)).first() is not None

    def of_many(self, idents: Collection[str]) -> dict[str, list[StoredVariant]]:
        """Return the recorded variants of several images, by ident."""
        found: dict[str, list[StoredVariant]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(select(variants).where(variants.c.ident.in_(idents))):
                found.setdefault(row.ident, []).append(_variant(row))
        return found

    def remove(
        self,
        names: Collection[Name],
        *,
        unless_rewritten_since: dict[Name, int] | None = None,
        jobs: Sequence[NewJob] = (),
    ) -> int:
        """Forget variants whose blobs were removed, and add jobs with that; return how many rows went.

        With `unless_rewritten_since`, only rows that still say what was read before: one that was written anew
        meanwhile belongs to a new blob.
        """
        if not names:
            return 0
        removed = 0
        with self._jobs.adding() as (connection, add):
            for name in names:
                mine: list[ColumnElement[bool]] = [_key() == tuple_(*name)]
                if unless_rewritten_since is not None:
                    mine.append(variants.c.created_us == unless_rewritten_since[name])
                removed += connection.execute(delete(variants).where(*mine)).rowcount
            add(jobs)
        return removed

    def used(self, names: Collection[Name]) -> None:
        """Note that variants were read from the store about now."""
        now = time.time_ns() // 1000
        with self._database.writing() as connection:
            for name in sorted(names):
                connection.execute(update(variants).where(_key() == tuple_(*name)).values(used_us=now))

    def mark_named(self, name: Name) -> None:
        """Note that a stored variant was named in a form; it is known for as long as the variant is stored."""
        with self._database.writing() as connection:
            connection.execute(update(variants).where(_key() == tuple_(*name)).values(named=True))

    def total(self) -> tuple[int, int]:
        """Return how many variants there are, and their bytes; looks at all of them."""
        query = select(func.count(), func.coalesce(func.sum(variants.c.size), 0))
        with self._database.reading() as connection:
            number, size = connection.execute(query).one()
            return int(number), int(size)

    def least_used(
        self, *, ident: str | None = None, limit: int, spares_named: bool = False
    ) -> list[tuple[str, StoredVariant]]:
        """Return the variants that were not read for the longest time, of one image or of all."""
        query = select(variants).order_by(variants.c.used_us).limit(limit)
        if ident is not None:
            query = query.where(variants.c.ident == ident)
        if spares_named:
            query = query.where(variants.c.named.is_(False))
        with self._database.reading() as connection:
            return [(row.ident, _variant(row)) for row in connection.execute(query)]

    def crowded(self, idents: Collection[str], most: int) -> dict[str, int]:
        """Return those of these images that have more than `most` variants, and how many too many."""
        number = func.count()
        query = select(variants.c.ident, number).where(variants.c.ident.in_(idents))
        with self._database.reading() as connection:
            rows = connection.execute(query.group_by(variants.c.ident).having(number > most))
            return {ident: count - most for ident, count in rows}

    def walk(
        self, *, ident: str | None = None, stem_like: str | None = None, unused_for_s: float | None = None
    ) -> Iterator[tuple[str, StoredVariant]]:
        """Yield variants in the order of their names, page by page, as the conditions say.

        `stem_like` is a canonical text with `*` for anything; `unused_for_s` seconds without being read.
        """
        conditions: list[ColumnElement[bool]] = []
        if ident is not None:
            conditions.append(variants.c.ident == ident)
        if stem_like is not None and "*" not in stem_like:
            conditions.append(variants.c.stem == stem_like)
        elif stem_like is not None:
            conditions.append(variants.c.stem.like(_like(stem_like), escape="\\"))
        if unused_for_s is not None:
            conditions.append(variants.c.used_us <= time.time_ns() // 1000 - int(unused_for_s * 1e6))
        last: Name | None = None
        while True:
            query = select(variants).where(*conditions).order_by(*variants.primary_key).limit(_PAGE)
            if last is not None:
                query = query.where(_key() > tuple_(*last))
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            yield from ((row.ident, _variant(row)) for row in rows)
            if len(rows) < _PAGE:
                return
            last = (rows[-1].ident, rows[-1].stem, rows[-1].format)


def name_of(ident: str, variant: StoredVariant) -> Name:
    """Return what names a variant."""
    return ident, variant.stem, variant.format


def created_us(variant: StoredVariant) -> int:
    """Return when a variant's row was written, as the table has it."""
    return microseconds(variant.created)


def _key() -> Any:
    return tuple_(variants.c.ident, variants.c.stem, variants.c.format)


def _like(pattern: str) -> str:
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, f"\\{special}")
    return pattern.replace("*", "%")


def _row(ident: str, variant: StoredVariant) -> dict[str, Any]:
    return {
        "ident": ident,
        "stem": variant.stem,
        "format": variant.format,
        "size": variant.size,
        "created_us": microseconds(variant.created),
        "sha256": variant.sha256,
        "used_us": microseconds(variant.used or variant.created),
        "fence": variant.fence,
    }


def _variant(row: Row[Any]) -> StoredVariant:
    return StoredVariant(
        stem=row.stem,
        format=row.format,
        size=row.size,
        created=moment(row.created_us),
        sha256=row.sha256,
        used=moment(row.used_us),
        named=row.named,
        fence=row.fence,
    )
