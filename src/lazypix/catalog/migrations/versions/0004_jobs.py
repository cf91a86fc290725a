"""jobs"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT, VARCHAR

revision = "0004"
down_revision = "0003"

KEY = sa.Text().with_variant(TEXT(collation="C"), "postgresql")
IDENT = sa.String(128).with_variant(VARCHAR(128, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("ident", IDENT, nullable=True),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.Integer, nullable=False, server_default="1"),
        sa.Column("batch", sa.String(32), nullable=True),
        sa.Column("waits", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("unique_key", KEY, nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_us", sa.BigInteger, nullable=False),
        sa.Column("token", sa.String(32), nullable=True),
        sa.Column("error", sa.Text, nullable=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_index("jobs_by_turn", "jobs", ["state", "kind", "priority", "turn", "id"])
    op.create_index("jobs_by_priority", "jobs", ["state", "priority", "turn"])
    op.create_index("jobs_by_caller", "jobs", ["state", "priority", "caller", "turn"])
    op.create_index("jobs_by_due", "jobs", ["state", "due_us"])
    op.create_index("jobs_by_batch", "jobs", ["batch"])
    op.create_index("jobs_by_image", "jobs", ["ident"])
    queued = sa.text("state IN ('waiting', 'later')")
    op.create_index(
        "jobs_by_unique_key", "jobs", ["unique_key"], unique=True, sqlite_where=queued, postgresql_where=queued
    )
