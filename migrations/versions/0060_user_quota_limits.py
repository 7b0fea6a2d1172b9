"""Add quotas of users within a project."""

import sqlalchemy as sa
from alembic import op

revision = "0060_user_quota_limits"
down_revision = "0050_console_tokens"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "user_quota_limits",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=64), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "user_id", "resource", name=op.f("pk_user_quota_limits")),
    )


def downgrade() -> None:
    op.drop_table("user_quota_limits")
