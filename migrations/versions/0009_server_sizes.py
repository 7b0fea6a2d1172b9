"""Add the flavor history of servers, for usage reports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.database import UtcDateTime

revision = "0009_server_sizes"
down_revision = "0007_host_credentials"
branch_labels = None
depends_on = None

SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "server_sizes",
        sa.Column("id", SEQ, autoincrement=True, nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.Column("flavor", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_sizes")),
    )
    op.create_index("ix_server_sizes_server_id", "server_sizes", ["server_id", "until"])


def downgrade() -> None:
    op.drop_table("server_sizes")
