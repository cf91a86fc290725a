"""The catalog: what is known of images and variants, and the states of the upload protocol."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, true, update

from lazypix.catalog.announcing import announce
from lazypix.catalog.database import Conflict, Database
from lazypix.catalog.health_rows import HealthRows
from lazypix.catalog.image_rows import image_of, row_of
from lazypix.catalog.jobs import JobRows, NewJob
from lazypix.catalog.key_rows import KeyRows, count_gone, count_new
from lazypix.catalog.lease_rows import LeaseRows
from lazypix.catalog.search import Search, page, rarest_first, terms_of
from lazypix.catalog.source_rows import SourceRows
from lazypix.catalog.tables import images, sources, terms, variants
from lazypix.catalog.upload_rows import LastPiece, UploadRows
from lazypix.catalog.values import DELETED, LASTING, Image, Refused, State, StoredVariant
from lazypix.catalog.variant_rows import VariantRows
from lazypix.errors import BadRequest, IdentTaken, StoreFailed, UnknownImage

__all__ = ["DELETED", "LASTING", "Catalog", "Image", "Refused", "Search", "State", "StoredVariant"]

_PAGE = 1000
_CLAIM_ATTEMPTS = 10
_COPIED_TRASH_S = 86_400.0


class Catalog:
    """Images and variants in a SQL database. Safe to use from many threads and processes.

    Every method raises `StoreFailed` when the database cannot do its work, and `StoreFull` when no space is left. A
    change is durable when its method returns. `variants` holds the rows of stored variants, `jobs` those of what is
    to be done, `leases` those of who does what now, `sources` of downloads, `uploads` of uploads in pieces,
    `keys` the API keys, `health` what is known of damage. `jobs` given to a method are added in the transaction of
    its change: both are there or none.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.jobs = JobRows(database)
        self.variants = VariantRows(database, self.jobs)
        self.leases = LeaseRows(database)
        self.sources = SourceRows(database)
        self.uploads = UploadRows(database)
        self.keys = KeyRows(database)
        self.health = HealthRows(database)

    @classmethod
    def open(cls, url: str) -> Catalog:
        """Open (or make) a catalog by the URL of its database: `sqlite:///<path>` or `postgresql://…`.

        Raises:
            SettingsError: the URL is malformed, or names another kind of database.
        """
        return cls(Database.open(url))

    @classmethod
    def sqlite(cls, path: str | Path) -> Catalog:
        """Open (or make) a SQLite database file."""
        return cls(Database.sqlite(path))

    def __repr__(self) -> str:
        return f"Catalog({self._database!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is a file, which the processes of one machine share; else other machines can use it too."""
        return self._database.is_sqlite

    def is_alone_in(self, folder: Path) -> bool:
        """Tell whether the database is a file of this folder, so that who uses the one uses the other."""
        return self._database.file is not None and self._database.file.parent.resolve() == folder.resolve()

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for one that is elsewhere."""
        return self._database.file

    def connection_arguments(self) -> dict[str, str | int]:
        """Return what psycopg needs to connect to the same PostgreSQL database, its password included."""
        return self._database.connection_arguments()

    def announce(self, idents: Collection[str]) -> None:
        """Tell who listens that what is remembered of these images is not true any more.

        The methods that change what can be seen of an image do so by themselves, in their own transactions.
        """
        with self._database.writing() as connection:
            announce(connection, idents)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def ping(self) -> None:
        """Ask the database for a sign of life."""
        self._database.ping()

    # --- uploads -----------------------------------------------------------------------------------------------

    def claim(self, image: Image) -> str:
        """Claim an ident: write the image's row in state `pending`, invisible until `publish`.

        Return a token: what follows is done for this claim only, and for no later one of the same ident.

        Raises:
            IdentTaken: the ident has, or ever had, a row.
            QuotaExceeded, Unauthorized: the key of its owner has no room for it, or was revoked.
        """
        token = secrets.token_hex(16)
        self._insert(row_of(image) | {"state": "pending", "since_us": _now(), "claim": token})
        return token

    def adopt(self, image: Image, *, state: State = "ready", trash_s: float = _COPIED_TRASH_S) -> bool:
        """Write the row of an image whose original lies in the store already; False when the ident has a row.

        For rebuilding a catalog and for copies: it was acknowledged once, so that it is never pending, and nobody
        takes it for an upload that failed. Of a deleted image only that its ident was given is kept; a trashed one
        can be had back for `trash_s` seconds.
        """
        if state in DELETED:
            image = replace(image, filename=None, metadata={})
        since_us = _now() + (int(trash_s * 1e6) if state == "trashed" else 0)
        try:
            self._insert(row_of(image) | {"state": state, "since_us": since_us, "claim": None}, image)
        except IdentTaken:
            return False
        return True

    def _insert(self, row: dict[str, Any], searched: Image | None = None) -> None:
        ident = row["ident"]
        for _ in range(_CLAIM_ATTEMPTS):
            try:
                return self._insert_once(row, searched)
            except Conflict:
                if self.states([ident]):
                    raise IdentTaken(f"The ident {ident} is taken; existing data is never replaced") from None
                # Another upload had it, which failed and gave it back meanwhile.
        raise StoreFailed(
            f"The catalog refused the image {ident} {_CLAIM_ATTEMPTS} times, and has none of this ident"
        )

    def _insert_once(self, row: dict[str, Any], searched: Image | None) -> None:
        with self._database.writing() as connection:
            connection.execute(insert(images).values(row))
            if searched is not None:
                _write_terms(connection, searched.ident, row["created_us"], searched.metadata)
            count_new(connection, row)

    def publish(
        self, ident: str, claim: str | None = None, *, jobs: Sequence[NewJob] = (), last: LastPiece | None = None
    ) -> None:
        """Turn a claimed image `ready`: from now on it exists. `claim` is its token; None: whoever claimed it.

        `last` is the piece with which its upload is complete, which is recorded in the same transaction.

        Raises:
            UnknownImage: there is no such claim (any more).
            OffsetMismatch: the upload does not stand where its last piece begins (any more).
        """
        with self.jobs.adding() as (connection, add):
            mine = [_is(ident), images.c.state == "pending", *_claimed_by(claim)]
            done = connection.execute(update(images).where(*mine).values(state="ready", since_us=_now(), claim=None))
            if done.rowcount != 1:
                raise UnknownImage(f"There is no claim on {ident}")
            row = connection.execute(select(images.c.created_us, images.c["metadata"]).where(_is(ident))).one()
            _write_terms(connection, ident, row[0], row[1])
            if last is not None:
                self.uploads.complete(connection, last, ident)
            add(jobs)

    def withdraw(self, ident: str, claim: str | None = None) -> bool:
        """Make sure that a claim will never be published, so that its blobs can be removed.

        Return False when there is nothing to withdraw: it was published, is gone, or is another's now.
        """
        with self._database.writing() as connection:
            mine = [_is(ident), images.c.state.in_(("pending", "withdrawn")), *_claimed_by(claim)]
            withdrawn = update(images).where(*mine).values(state="withdrawn", since_us=_now())
            return connection.execute(withdrawn).rowcount == 1

    def take_over(self, ident: str, *, older_than_s: float) -> str | None:
        """Withdraw a claim that nobody has worked on for so long; return a new token for it, None if there is none.

        Of several who try at once one succeeds; whoever held it before can do nothing with it any more.
        """
        token, latest = secrets.token_hex(16), _now() - int(older_than_s * 1e6)
        left = [_is(ident), images.c.state.in_(("pending", "withdrawn")), images.c.since_us <= latest]
        with self._database.writing() as connection:
            taken = update(images).where(*left).values(state="withdrawn", since_us=_now(), claim=token)
            return token if connection.execute(taken).rowcount == 1 else None

    def abandon(self, ident: str, claim: str | None = None) -> None:
        """Give a withdrawn claim back, as if it had never been."""
        with self._database.writing() as connection:
            mine = delete(images).where(_is(ident), images.c.state == "withdrawn", *_claimed_by(claim))
            count_gone(connection, mine.returning(images.c.owner, images.c.size))

    # --- looking -----------------------------------------------------------------------------------------------

    def get(self, ident: str) -> Image:
        """Return a ready image.

        Raises:
            UnknownImage: there is none of this ident.
        """
        with self._database.reading() as connection:
            row = connection.execute(_GET, {"ident": ident}).one_or_none()
        if row is None:
            raise UnknownImage(f"There is no image {ident}")
        return image_of(row)

    def entries(self, idents: Collection[str]) -> dict[str, tuple[Image, State]]:
        """Return what is known of those images that have a row, with their states."""
        query = select(images).where(images.c.ident.in_(idents))
        with self._database.reading() as connection:
            return {row.ident: (image_of(row), row.state) for row in connection.execute(query)}

    def states(self, idents: Collection[str]) -> dict[str, State]:
        """Return the states of those images that have a row."""
        query = select(images.c.ident, images.c.state).where(images.c.ident.in_(idents))
        with self._database.reading() as connection:
            return {row.ident: row.state for row in connection.execute(query)}

    def search(self, search: Search, *, limit: int = 100, behind: str | None = None) -> list[Image]:
        """Return ready images as `search` says; `behind` is the ident at which the page before ended.

        Raises:
            BadRequest: the search is malformed.
            UnknownImage: `behind` is not the ident of an image, present or deleted; or, in the order of names, of one
                that has none or was deleted so long ago that it is forgotten.
        """
        if limit < 0:
            raise BadRequest(f"limit={limit} is not accepted; accepted: 0 or more")
        with self._database.reading() as connection:
            mark = None
            if behind is not None:
                mark = connection.execute(select(images).where(_is(behind))).one_or_none()
                if mark is None:
                    raise UnknownImage(f"There is no image {behind}")
            query = page(search, mark, limit, rarest_first(connection, search.terms))
            return [image_of(row) for row in connection.execute(query)]

    def walk(self, *, after: str = "", state: State = "ready") -> Iterator[Image]:
        """Yield all images of a state in the order of their idents, page by page; changes meanwhile are harmless."""
        return (image for image, _ in self.walk_all(after=after, states=(state,)))

    def walk_all(self, *, after: str = "", states: Collection[State] = LASTING) -> Iterator[tuple[Image, State]]:
        """Yield all images of these states, with their state, as `walk`."""
        # An expression, so that no index of states is used, and sorted, for each page.
        wanted = images.c.state.in_(states).is_(true())
        while True:
            query = select(images).where(images.c.ident > after, wanted).order_by(images.c.ident)
            with self._database.reading() as connection:
                rows = connection.execute(query.limit(_PAGE)).all()
            yield from ((image_of(row), row.state) for row in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1].ident

    def numbers(self) -> dict[State, int]:
        """Return how many images there are of each state; looks at all of them."""
        query = select(images.c.state, func.count()).group_by(images.c.state)
        with self._database.reading() as connection:
            return {state: int(number) for state, number in connection.execute(query)}

    # --- deletion ----------------------------------------------------------------------------------------------

    def begin_delete(self, ident: str, *, trash_s: float = 0, jobs: Sequence[NewJob] = ()) -> Image:
        """Hide a ready image: for good, so that its blobs can be removed, or as one that can be had back for a while.

        `trash_s` are the seconds for which it can; how long is kept with the image, whatever is set later. For good,
        one in the trash is deleted too.

        Raises:
            UnknownImage: there is no such image.
        """
        with self.jobs.adding() as (connection, add):
            moved = _move(connection, ident, "ready", "trashed" if trash_s else "deleting", in_s=trash_s)
            if not moved and not (trash_s == 0 and _move(connection, ident, "trashed", "deleting")):
                raise UnknownImage(f"There is no image {ident}")
            add(jobs)
            announce(connection, [ident])
            return image_of(connection.execute(select(images).where(_is(ident))).one())

    def undelete(self, ident: str, *, jobs: Sequence[NewJob] = ()) -> None:
        """Make a trashed image ready again.

        Raises:
            UnknownImage: there is no trashed image of this ident.
        """
        with self.jobs.adding() as (connection, add):
            if not _move(connection, ident, "trashed", "ready"):
                raise UnknownImage(f"There is no deleted image {ident} that can be had back")
            add(jobs)
            announce(connection, [ident])

    def empty_trash(self, ident: str, *, before_its_time: bool = False, jobs: Sequence[NewJob] = ()) -> bool:
        """Turn a trashed image's deletion final if its time is over; return whether it was."""
        due = () if before_its_time else (images.c.since_us <= _now(),)
        final = update(images).where(_is(ident), images.c.state == "trashed", *due)
        with self.jobs.adding() as (connection, add):
            done = connection.execute(final.values(state="deleting", since_us=_now())).rowcount == 1
            if done:
                add(jobs)
        return done

    def end_delete(self, ident: str) -> None:
        """Record that the blobs of an image in deletion are gone; its ident stays taken."""
        with self._database.writing() as connection:
            if _move(connection, ident, "deleting", "deleted"):
                self._forget(connection, ident)
                count_gone(connection, select(images.c.owner, images.c.size).where(_is(ident)))

    def forget_deleted(self, ident: str) -> None:
        """Record that the blobs of a deleted image were looked for once more, and none is left."""
        with self._database.writing() as connection:
            _move(connection, ident, "deleted", "gone")
            self._forget(connection, ident)
            gone = update(images).where(_is(ident), images.c.state == "gone")
            connection.execute(gone.values(filename_key=""))

    @staticmethod
    def _forget(connection: Connection, ident: str) -> None:
        """Keep of a deleted image what must be known: that its ident was given, and where a page ended with it."""
        connection.execute(delete(variants).where(variants.c.ident == ident))
        connection.execute(delete(terms).where(terms.c.ident == ident))
        connection.execute(delete(sources).where(sources.c.ident == ident))
        final = images.c.state.in_(("deleted", "gone"))
        connection.execute(update(images).where(_is(ident), final).values(filename=None, metadata={}))

    def unfinished(
        self, *states: State, older_than_s: float = 0, limit: int | None = None
    ) -> list[tuple[str, State]]:
        """Return ident and state of the images that are in one of these states for this long or longer.

        Without states, those between two lasting ones.
        """
        wanted = states or ("pending", "withdrawn", "deleting")
        latest = _now() - int(older_than_s * 1e6)
        query = select(images.c.ident, images.c.state).limit(limit)
        query = query.where(images.c.state.in_(wanted), images.c.since_us <= latest)
        with self._database.reading() as connection:
            return [(row.ident, row.state) for row in connection.execute(query)]


# The statement of every request's way; made once, because making one costs as much as carrying it out.
_GET = select(images).where(images.c.ident == bindparam("ident"), images.c.state == "ready")


def _claimed_by(claim: str | None) -> list[Any]:
    return [images.c.claim == claim] if claim is not None else []


def _write_terms(connection: Connection, ident: str, created_us: int, found: Mapping[str, Any]) -> None:
    rows = {term: {"term": term, "created_us": created_us, "ident": ident} for term in terms_of(found)}
    if rows:
        connection.execute(insert(terms), list(rows.values()))


def _is(ident: str) -> Any:
    return images.c.ident == ident


def _move(connection: Connection, ident: str, state: State, to: State, *, in_s: float = 0) -> bool:
    mine = update(images).where(_is(ident), images.c.state == state)
    return connection.execute(mine.values(state=to, since_us=_now() + int(in_s * 1e6))).rowcount == 1


def _now() -> int:
    return time.time_ns() // 1000
