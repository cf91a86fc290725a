"""The tables of the catalog. Their history is in `migrations`; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

images = Table(
    "images",
    metadata,
    Column("ident", String(128), primary_key=True),
    # pending -> ready -> deleting -> deleted, or pending -> withdrawn -> no row at all.
    # A deleted row stays: its ident is never given to other bytes.
    Column("state", String(16), nullable=False),
    Column("since_us", BigInteger, nullable=False, comment="when the state began, microseconds since 1970, UTC"),
    Column("created_us", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("format", String(16), nullable=False),
    Column("width", Integer, nullable=False, comment="pixels of one frame as stored, not upright"),
    Column("height", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("orientation", Integer, nullable=False, comment="EXIF, 1..8"),
    Column("alpha", Boolean, nullable=False),
    Column("filename", Text, nullable=True),
    Column("metadata", JSON, nullable=False, comment="the caller's own"),
    Column("strikes", Integer, nullable=False, comment="renderers lost to this image"),
    Index("images_by_state_and_time", "state", "created_us", "ident"),
)

variants = Table(
    "variants",
    metadata,
    Column("ident", String(128), ForeignKey("images.ident", ondelete="CASCADE"), primary_key=True),
    Column("stem", String(255), primary_key=True, comment="canonical text without the format"),
    Column("format", String(16), primary_key=True),
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("created_us", BigInteger, nullable=False),
)
