"""search, verification and eviction"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT, VARCHAR

from lazypix.catalog.search import filename_key, terms_of

revision = "0002"
down_revision = "0001"

KEY = sa.Text().with_variant(TEXT(collation="C"), "postgresql")
IDENT = sa.String(128).with_variant(VARCHAR(128, collation="C"), "postgresql")
PAGE = 1000


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite compares byte by byte anyway
        op.alter_column("images", "ident", type_=IDENT)
        op.alter_column("variants", "ident", type_=IDENT)
    for column in (
        sa.Column("filename_key", KEY, nullable=False, server_default=""),
        sa.Column("checked_us", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("damaged", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("claim", sa.String(32), nullable=True),
    ):
        op.add_column("images", column)
    op.add_column("variants", sa.Column("sha256", sa.String(64), nullable=True))
    op.add_column("variants", sa.Column("used_us", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "terms",
        sa.Column("term", KEY, primary_key=True),
        sa.Column("created_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ident", IDENT, sa.ForeignKey("images.ident", ondelete="CASCADE"), primary_key=True),
        sqlite_with_rowid=False,
    )
    fill()
    op.create_index("images_by_state_and_since", "images", ["state", "since_us"])
    op.create_index("images_by_filename", "images", ["state", "filename_key", "ident"])
    op.create_index("images_by_size", "images", ["state", "size", "ident"])
    op.create_index("images_by_check", "images", ["state", "checked_us", "ident"])
    op.create_index("terms_by_image", "terms", ["ident"])
    op.create_index("variants_by_use", "variants", ["used_us"])
    op.create_index("variants_by_stem", "variants", ["stem", "ident"])


def fill() -> None:
    """Write what is searched for the images that are there already; and count their variants as used once."""
    connection = op.get_bind()
    images = sa.table(
        "images",
        *(sa.column(name) for name in ("ident", "filename", "filename_key", "created_us")),
        sa.column("metadata", sa.JSON),
    )
    terms = sa.table("terms", sa.column("term"), sa.column("created_us"), sa.column("ident"))
    last = ""
    while True:
        page = sa.select(images).where(images.c.ident > last).order_by(images.c.ident).limit(PAGE)
        rows = connection.execute(page).all()
        if not rows:
            break
        last = rows[-1].ident
        named = [{"key": filename_key(row.filename), "b_ident": row.ident} for row in rows if row.filename]
        if named:
            mine = sa.update(images).where(images.c.ident == sa.bindparam("b_ident"))
            connection.execute(mine.values(filename_key=sa.bindparam("key")), named)
        found = [
            {"term": term, "created_us": row.created_us, "ident": row.ident}
            for row in rows
            for term in terms_of(row._mapping["metadata"])
        ]
        if found:
            connection.execute(sa.insert(terms), found)
    connection.execute(sa.text("UPDATE variants SET used_us = created_us"))
    connection.execute(sa.text("UPDATE images SET checked_us = created_us"))  # an upload is verified
