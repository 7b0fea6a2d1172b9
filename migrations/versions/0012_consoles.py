"""Add console tokens."""

import sqlalchemy as sa
from alembic import op

from app.db.database import UtcDateTime

revision = "0012_consoles"
down_revision = "0009_server_sizes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "console_tokens",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("console_type", sa.String(length=16), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_console_tokens")),
    )
    op.create_index("ix_console_tokens_expires_at", "console_tokens", ["expires_at"])


def downgrade() -> None:
    op.drop_table("console_tokens")
