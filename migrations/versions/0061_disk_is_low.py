"""Add the low disk space flag of hosts, which get no new work."""

import sqlalchemy as sa
from alembic import op

revision = "0061_disk_is_low"
down_revision = "0060_user_quota_limits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("hosts") as table:
        table.add_column(sa.Column("disk_is_low", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("hosts") as table:
        table.alter_column("disk_is_low", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("hosts") as table:
        table.drop_column("disk_is_low")
