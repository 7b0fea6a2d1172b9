"""Add a table of login attempts by user and source address."""

import sqlalchemy as sa
from alembic import op

from app.db.database import UtcDateTime

revision = "0042_password_attempts"
down_revision = "0041_addresses"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_password_attempts",
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=45), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "source", name=op.f("pk_identity_password_attempts")),
    )
    op.create_index("ix_identity_password_attempts_attempted_at", "identity_password_attempts", ["attempted_at"])
    op.drop_column("identity_users", "failed_logins")
    op.drop_column("identity_users", "failed_at")


def downgrade() -> None:
    op.add_column("identity_users", sa.Column("failed_at", UtcDateTime(), nullable=True))
    op.add_column("identity_users", sa.Column("failed_logins", sa.Integer(), nullable=False, server_default="0"))
    op.drop_table("identity_password_attempts")
