"""images and variants"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "images",
        sa.Column("ident", sa.String(128), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column(
            "since_us", sa.BigInteger, nullable=False, comment="when the state began, microseconds since 1970, UTC"
        ),
        sa.Column("created_us", sa.BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False, comment="bytes"),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("width", sa.Integer, nullable=False, comment="pixels of one frame as stored, not upright"),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("frames", sa.Integer, nullable=False),
        sa.Column("orientation", sa.Integer, nullable=False, comment="EXIF, 1..8"),
        sa.Column("alpha", sa.Boolean, nullable=False),
        sa.Column("filename", sa.Text, nullable=True),
        sa.Column("metadata", sa.JSON, nullable=False, comment="the caller's own"),
        sa.Column("strikes", sa.Integer, nullable=False, comment="renderers lost to this image"),
    )
    op.create_index("images_by_state_and_time", "images", ["state", "created_us", "ident"])
    op.create_table(
        "variants",
        sa.Column("ident", sa.String(128), sa.ForeignKey("images.ident", ondelete="CASCADE"), primary_key=True),
        sa.Column("stem", sa.String(255), primary_key=True, comment="canonical text without the format"),
        sa.Column("format", sa.String(16), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False, comment="bytes"),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
