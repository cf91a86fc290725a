"""API keys and what they own, URLs that originals came from, uploads in pieces, previews"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import VARCHAR

revision = "0007"
down_revision = "0006"

_IDENT = sa.String(128).with_variant(VARCHAR(128, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("images", sa.Column("owner", sa.String(32), nullable=True))
    op.add_column("images", sa.Column("thumbhash", sa.String(64), nullable=True))
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("revoked_us", sa.BigInteger, nullable=True),
        sa.Column("max_images", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("max_bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("per_minute", sa.Integer, nullable=False, server_default="0"),
        sa.Column("images", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("minute", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("requests", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "sources",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("ident", _IDENT, nullable=False),
        sa.Column("landed", sa.Text, nullable=False),
        sa.Column("etag", sa.Text, nullable=True),
        sa.Column("last_modified", sa.Text, nullable=True),
        sa.Column("checked_us", sa.BigInteger, nullable=False),
    )
    op.create_index("sources_by_image", "sources", ["ident"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("pieces", sa.Integer, nullable=False, server_default="0"),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("owner", sa.String(32), nullable=True),
        sa.Column("ident", _IDENT, nullable=True),
        sa.Column("until_us", sa.BigInteger, nullable=False),
    )
    op.create_index("uploads_by_end", "uploads", ["until_us"])
    op.create_table(
        "parts",
        sa.Column("upload", sa.String(32), sa.ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("token", sa.String(16), nullable=False),
    )
