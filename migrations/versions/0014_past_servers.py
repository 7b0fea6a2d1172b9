"""Add usage records of purged servers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.database import UtcDateTime

revision = "0014_past_servers"
down_revision = "0013_listening"
branch_labels = None
depends_on = None

SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "past_servers",
        sa.Column("seq", SEQ, autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("flavor", JSON, nullable=False),
        sa.Column("launched_at", UtcDateTime(), nullable=False),
        sa.Column("terminated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_past_servers")),
        sa.UniqueConstraint("id", name=op.f("uq_past_servers_id")),
    )
    op.create_index("ix_past_servers_terminated_at", "past_servers", ["terminated_at"])
    op.create_index("ix_past_servers_project_terminated", "past_servers", ["project_id", "terminated_at"])


def downgrade() -> None:
    op.drop_table("past_servers")
