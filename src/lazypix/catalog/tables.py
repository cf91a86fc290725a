"""The tables of the catalog. Their history is in `migrations`; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import TEXT, VARCHAR

metadata = MetaData()

# Compared byte by byte, in every database: so that what begins alike lies together, and the order is the same.
Key = Text().with_variant(TEXT(collation="C"), "postgresql")
Ident = String(128).with_variant(VARCHAR(128, collation="C"), "postgresql")

images = Table(
    "images",
    metadata,
    Column("ident", Ident, primary_key=True),
    # See catalog.values.State.
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
    # The filename as it is searched; when the original's bytes were last verified; whether they were wrong then.
    Column("filename_key", Key, nullable=False, server_default=""),
    Column("checked_us", BigInteger, nullable=False, server_default="0"),
    Column("damaged", Boolean, nullable=False, server_default=false()),
    Column("claim", String(32), nullable=True),  # whose upload or undoing is under way
    Column("owner", String(32), nullable=True),  # the API key that it was uploaded with
    Column("thumbhash", String(64), nullable=True),  # a preview in some 25 bytes, base64
    Index("images_by_state_and_time", "state", "created_us", "ident"),
    Index("images_by_state_and_since", "state", "since_us"),
    Index("images_by_filename", "state", "filename_key", "ident"),
    Index("images_by_size", "state", "size", "ident"),
    Index("images_by_check", "state", "checked_us", "ident"),
)

terms = Table(
    "terms",
    metadata,
    Column("term", Key, primary_key=True),  # name=value of the caller's metadata
    Column("created_us", BigInteger, primary_key=True, autoincrement=False),  # the image's
    Column("ident", Ident, ForeignKey("images.ident", ondelete="CASCADE"), primary_key=True),
    Index("terms_by_image", "ident"),
    sqlite_with_rowid=False,  # the table is its primary key, and needs no index beside it
)

variants = Table(
    "variants",
    metadata,
    Column("ident", Ident, ForeignKey("images.ident", ondelete="CASCADE"), primary_key=True),
    Column("stem", String(255), primary_key=True, comment="canonical text without the format"),
    Column("format", String(16), primary_key=True),
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("created_us", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=True),  # of the bytes
    Column("used_us", BigInteger, nullable=False, server_default="0"),  # about when it was last read
    Column("fence", BigInteger, nullable=False, server_default="0"),  # of the lease under which it was made
    Column("named", Boolean, nullable=False, server_default=false()),  # in a form, and not only asked for
    Index("variants_by_use", "used_us"),
    Index("variants_by_stem", "stem", "ident"),
)

leases = Table(
    "leases",
    metadata,
    Column("key", Key, primary_key=True),
    Column("token", String(32), nullable=False),  # whose it is
    Column("fence", BigInteger, nullable=False),  # grows with each holder
    Column("until_us", BigInteger, nullable=False),  # microseconds since 1970 by the database's clock
    Index("leases_by_end", "until_us"),
)

_queued = text("state IN ('waiting', 'later')")  # written out: a parameter could not be compared with a query's

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    # See catalog.jobs.JobState.
    Column("state", String(16), nullable=False),
    Column("kind", Key, nullable=False),
    Column("ident", Ident, nullable=True),  # the image it is about; not a reference: it may outlive the image
    Column("payload", JSON, nullable=False),
    Column("priority", Integer, nullable=False),  # lower is sooner
    Column("caller", String(64), nullable=False),  # whose turn it takes
    Column("turn", BigInteger, nullable=False),  # the place in line of one that waits; see catalog.turns
    Column("cost", Integer, nullable=False, server_default="1"),  # how far it moves its caller back in line
    Column("batch", String(32), nullable=True),  # jobs that belong together
    Column("waits", Boolean, nullable=False, server_default=false()),  # for the rest of its batch
    Column("unique_key", Key, nullable=True),  # of jobs that would do the same, one waits
    Column("attempts", Integer, nullable=False, server_default="0"),  # that were begun
    # Later: when it may be begun. Running: until when it is taken. Waiting: when it was last announced. Microseconds
    # since 1970, by the database's clock.
    Column("due_us", BigInteger, nullable=False),
    Column("token", String(32), nullable=True),  # of who carries it out
    Column("error", Text, nullable=True),  # of the last attempt
    Column("created_us", BigInteger, nullable=False),
    Index("jobs_by_turn", "state", "kind", "priority", "turn", "id"),
    Index("jobs_by_priority", "state", "priority", "turn"),
    Index("jobs_by_caller", "state", "priority", "caller", "turn"),
    Index("jobs_by_due", "state", "due_us"),
    Index("jobs_by_batch", "batch"),
    Index("jobs_by_image", "ident"),
    Index("jobs_by_unique_key", "unique_key", unique=True, sqlite_where=_queued, postgresql_where=_queued),
)

# What was announced last, for who listens to a SQLite database; PostgreSQL tells by itself. See `announcing`.
changes = Table(
    "changes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("ident", Ident, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False),  # SHA-256 of the secret
    Column("scopes", Text, nullable=False),  # separated by commas
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger, nullable=True),
    # Quotas; 0: none. Then what is used of them, and of which minute since 1970 the requests are.
    Column("max_images", BigInteger, nullable=False, server_default="0"),
    Column("max_bytes", BigInteger, nullable=False, server_default="0"),
    Column("per_minute", Integer, nullable=False, server_default="0"),
    Column("images", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("minute", BigInteger, nullable=False, server_default="0"),
    Column("requests", Integer, nullable=False, server_default="0"),
)

# Where originals were downloaded from, and what their servers said of them.
sources = Table(
    "sources",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the URL, which may be long
    Column("url", Text, nullable=False),
    Column("ident", Ident, nullable=False),  # of what is there now
    Column("landed", Text, nullable=False),  # the URL behind all redirects, of which the next two are said
    Column("etag", Text, nullable=True),
    Column("last_modified", Text, nullable=True),
    Column("checked_us", BigInteger, nullable=False),
    Index("sources_by_image", "ident"),
)

# Uploads that come in pieces, each of which is a blob until all are there.
uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("length", BigInteger, nullable=False),  # bytes of the whole
    Column("position", BigInteger, nullable=False),  # bytes received; -1: it is being thrown away
    Column("pieces", Integer, nullable=False, server_default="0"),  # in which they came
    Column("metadata", JSON, nullable=False),  # what its client said of it, by name
    Column("owner", String(32), nullable=True),  # the API key
    Column("ident", Ident, nullable=True),  # of the image that it became
    Column("until_us", BigInteger, nullable=False),  # when what is there is thrown away
    Index("uploads_by_end", "until_us"),
)

parts = Table(
    "parts",
    metadata,
    Column("upload", String(32), ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),  # where it begins
    Column("size", BigInteger, nullable=False),  # bytes
    Column("sha256", String(64), nullable=False),
    Column("token", String(16), nullable=False),  # tells it from others that were sent for this place
)
