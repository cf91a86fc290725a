"""Alembic's entry point. The connection, inside its transaction, comes from `lazypix.catalog.schema`."""

from alembic import context

from lazypix.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
