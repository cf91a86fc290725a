"""which variants were named in a form, and not only asked for"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("variants", sa.Column("named", sa.Boolean, nullable=False, server_default=sa.false()))
