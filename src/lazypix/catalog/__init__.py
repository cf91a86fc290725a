"""The catalog: what is known of images and variants, and the states of the upload protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    Row,
    bindparam,
    create_engine,
    delete,
    event,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lazypix.catalog.schema import upgrade
from lazypix.catalog.tables import images, variants
from lazypix.errors import IdentTaken, StoreFailed, StoreFull, UnknownImage
from lazypix.formats import by_name
from lazypix.plan import Probe

State = Literal["pending", "withdrawn", "ready", "deleting", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image as the catalog knows it."""

    ident: str
    sha256: str
    """Of the original's bytes, 64 hex digits."""
    size: int
    """Bytes of the original."""
    probe: Probe
    created: datetime
    """UTC."""
    filename: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The caller's own, JSON-able."""
    strikes: int = 0
    """How many renderers were lost to this image."""

    @property
    def width(self) -> int:
        """Pixels, upright."""
        return self.probe.upright_size[0]

    @property
    def height(self) -> int:
        """Pixels, upright."""
        return self.probe.upright_size[1]

    @property
    def format(self) -> str:
        """Name of the original's format."""
        return self.probe.format

    @property
    def frames(self) -> int:
        """How many frames an animation has; 1 for a still image."""
        return self.probe.frames

    def facts(self) -> dict[str, Any]:
        """Return what is known as JSON-able values: width and height in pixels, upright; size in bytes."""
        return {
            "ident": self.ident,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "alpha": self.probe.alpha,
            "size": self.size,
            "sha256": self.sha256,
            "created": self.created.isoformat(),
            "filename": self.filename,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVariant:
    """One variant that lies in the store."""

    stem: str
    format: str
    size: int
    """Bytes."""
    created: datetime
    """UTC."""

    def facts(self) -> dict[str, Any]:
        """Return what is known as JSON-able values: `name` is the file's name in the store, `size` in bytes."""
        name = f"{self.stem}.{by_name(self.format).extension}"
        return {"name": name, "size": self.size, "created": self.created.isoformat()}


class Catalog:
    """Images and variants in a SQL database. Safe to use from many threads and processes.

    Every method raises `StoreFailed` when the database cannot do its work, and `StoreFull` when no space is left. A
    change is durable when its method returns.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        with _translated():
            upgrade(engine, self._writer)

    @classmethod
    def sqlite(cls, path: str | Path) -> Catalog:
        """Open (or make) a SQLite database file, in WAL mode."""
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "isolation_level": None})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return cls(engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Ask the database for a sign of life.

        On a new connection: an open one goes on with the SQLite file that was deleted or replaced under it.
        """
        fresh = create_engine(self._engine.url, poolclass=NullPool)
        with _translated(), fresh.connect() as connection:
            connection.execute(select(images.c.ident).limit(1))

    def claim(self, image: Image) -> None:
        """Claim an ident: write the image's row in state `pending`, invisible until `publish`.

        Raises:
            IdentTaken: the ident has, or ever had, a row.
        """
        try:
            with self._writing() as connection:
                connection.execute(insert(images).values(_row(image)))
        except _Conflict as conflict:
            with self._reading() as connection:
                taken = connection.execute(select(images.c.ident).where(images.c.ident == image.ident)).one_or_none()
            if taken is None:
                raise StoreFailed("The catalog refused the image") from conflict
            raise IdentTaken(f"The ident {image.ident} is taken; existing data is never replaced") from None

    def publish(self, ident: str) -> None:
        """Turn a claimed image `ready`: from now on it exists.

        Raises:
            UnknownImage: there is no such claim (any more).
        """
        with self._writing() as connection:
            if not self._move(connection, ident, "pending", "ready"):
                raise UnknownImage(f"There is no claim on {ident}")

    def withdraw(self, ident: str) -> bool:
        """Make sure that a claim will never be published, so that its blobs can be removed.

        Return False when there is nothing to withdraw: it was published, or is gone.
        """
        with self._writing() as connection:
            mine = images.c.state.in_(("pending", "withdrawn"))
            withdrawn = update(images).where(images.c.ident == ident, mine).values(state="withdrawn")
            return connection.execute(withdrawn).rowcount == 1

    def abandon(self, ident: str) -> None:
        """Give a withdrawn claim back, as if it had never been."""
        with self._writing() as connection:
            connection.execute(delete(images).where(images.c.ident == ident, images.c.state == "withdrawn"))

    def get(self, ident: str) -> Image:
        """Return a ready image.

        Raises:
            UnknownImage: there is none of this ident.
        """
        with self._reading() as connection:
            row = connection.execute(_GET, {"ident": ident}).one_or_none()
        if row is None:
            raise UnknownImage(f"There is no image {ident}")
        return _image(row)

    def page(self, *, limit: int = 100, before: str | None = None) -> list[Image]:
        """Return ready images, newest first; `before` is the ident after which the page begins.

        Raises:
            UnknownImage: `before` is not the ident of an image.
        """
        query = select(images).where(images.c.state == "ready")
        with self._reading() as connection:
            if before is not None:
                mark = connection.execute(select(images.c.created_us).where(images.c.ident == before)).scalar()
                if mark is None:
                    raise UnknownImage(f"There is no image {before}")
                same_time = (images.c.created_us == mark) & (images.c.ident < before)
                query = query.where(or_(images.c.created_us < mark, same_time))
            query = query.order_by(images.c.created_us.desc(), images.c.ident.desc()).limit(limit)
            return [_image(row) for row in connection.execute(query)]

    def begin_delete(self, ident: str) -> Image:
        """Hide a ready image for good; its blobs can then be removed.

        Raises:
            UnknownImage: there is no ready image of this ident.
        """
        with self._writing() as connection:
            if not self._move(connection, ident, "ready", "deleting"):
                raise UnknownImage(f"There is no image {ident}")
            return _image(connection.execute(select(images).where(images.c.ident == ident)).one())

    def end_delete(self, ident: str) -> None:
        """Record that the blobs of an image in deletion are gone; its ident stays taken."""
        with self._writing() as connection:
            self._move(connection, ident, "deleting", "deleted")
            connection.execute(delete(variants).where(variants.c.ident == ident))

    def add_variants(self, rows: Sequence[tuple[str, StoredVariant]]) -> set[str]:
        """Record stored variants: pairs of ident and variant; one that is recorded already stays as it is.

        Return the idents of images that are not ready (any more); nothing is recorded for them.
        """
        values = [
            {
                "v_ident": ident,
                "v_stem": variant.stem,
                "v_format": variant.format,
                "v_size": variant.size,
                "v_created_us": _microseconds(variant.created),
            }
            for ident, variant in rows
        ]
        idents = {ident for ident, _ in rows}
        with self._writing() as connection:
            connection.execute(_ADD_VARIANT, values)
            ready = select(images.c.ident).where(images.c.ident.in_(idents), images.c.state == "ready")
            return idents - set(connection.execute(ready).scalars())

    def variants(self, ident: str) -> list[StoredVariant]:
        """Return the recorded variants of an image, by name."""
        query = select(variants).where(variants.c.ident == ident).order_by(variants.c.stem, variants.c.format)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            StoredVariant(stem=row.stem, format=row.format, size=row.size, created=_time(row.created_us))
            for row in rows
        ]

    def strike(self, ident: str) -> None:
        """Record that a renderer was lost to this image."""
        with self._writing() as connection:
            more = update(images).where(images.c.ident == ident).values(strikes=images.c.strikes + 1)
            connection.execute(more)

    def unfinished(self, *, older_than_s: float = 0) -> list[tuple[str, State]]:
        """Return ident and state of the images that are between two lasting states for this long or longer."""
        latest = _now() - int(older_than_s * 1e6)
        query = select(images.c.ident, images.c.state)
        query = query.where(images.c.state.in_(("pending", "withdrawn", "deleting")), images.c.since_us <= latest)
        with self._reading() as connection:
            return [(row.ident, row.state) for row in connection.execute(query)]

    def _move(self, connection: Connection, ident: str, state: State, to: State) -> bool:
        mine = update(images).where(images.c.ident == ident, images.c.state == state)
        return connection.execute(mine.values(state=to, since_us=_now())).rowcount == 1

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _translated(), self._writer.begin() as connection:
            yield connection


def _add_variant() -> Insert:
    """Return the statement that adds a row if the image is ready and there is no such row yet."""
    new = [bindparam(f"v_{column.name}", type_=column.type) for column in variants.c]
    same = exists().where(*(column == value for column, value in zip(variants.primary_key, new, strict=False)))
    found = select(*new).where(images.c.ident == new[0], images.c.state == "ready", ~same)
    return insert(variants).from_select(list(variants.c), found)


# Statements of the way of a request; made once, because making one costs as much as carrying it out.
_GET = select(images).where(images.c.ident == bindparam("ident"), images.c.state == "ready")
_ADD_VARIANT = _add_variant()


class _Conflict(Exception):
    """A row with this key exists."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise _Conflict from None
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_FULL":
            raise StoreFull("No space left for the catalog") from error
        raise StoreFailed(f"The catalog is not available ({error.orig})") from error
    except SQLAlchemyError as error:
        raise StoreFailed(f"The catalog failed ({type(error).__name__})") from error


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads first and then writes could not wait for it.

    Reads are single statements and need no transaction.
    Source: SQLite documentation, "Isolation In SQLite" and SQLITE_BUSY_SNAPSHOT.
    """
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _row(image: Image) -> dict[str, Any]:
    probe = image.probe
    return {
        "ident": image.ident,
        "state": "pending",
        "since_us": _microseconds(image.created),
        "created_us": _microseconds(image.created),
        "sha256": image.sha256,
        "size": image.size,
        "format": probe.format,
        "width": probe.width,
        "height": probe.height,
        "frames": probe.frames,
        "orientation": probe.orientation,
        "alpha": probe.alpha,
        "filename": image.filename,
        "metadata": dict(image.metadata),
        "strikes": image.strikes,
    }


def _image(row: Row[Any]) -> Image:
    return Image(
        ident=row.ident,
        sha256=row.sha256,
        size=row.size,
        probe=Probe(
            format=row.format,
            width=row.width,
            height=row.height,
            frames=row.frames,
            orientation=row.orientation,
            alpha=row.alpha,
        ),
        created=_time(row.created_us),
        filename=row.filename,
        metadata=row._mapping["metadata"],
        strikes=row.strikes,
    )


def _now() -> int:
    return time.time_ns() // 1000


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
