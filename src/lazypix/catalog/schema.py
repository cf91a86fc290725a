"""Brings a database to the newest schema, with Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from lazypix.errors import SettingsError

HEAD = "0007"
"""The newest revision in `migrations/versions`; a test holds it to that."""

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x6C617A79  # any number that nobody else uses


def upgrade(reader: Engine, writer: Engine) -> None:
    """Apply the migrations that a database lacks; of several processes at once one does it, the others wait.

    `writer` is the same engine, whose transactions take the write lock when they begin.
    """
    with reader.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with writer.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        found = _revision(connection)
        if found != HEAD:
            _check_known(found)
            _run_alembic(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check_known(revision: str | None) -> None:
    known = {path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}
    if revision is not None and revision not in known:
        raise SettingsError(
            f"The catalog was made by a newer lazypix (its schema is {revision}, the newest here {HEAD})"
        )


def _run_alembic(connection: Connection) -> None:
    from alembic import command  # slow to import, and rarely needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
