"""Add revision numbers of networks, subnets, ports and subnet pools, which `If-Match` compares."""

import sqlalchemy as sa
from alembic import op

revision = "0043_network_revisions"
down_revision = "0042_password_attempts"
branch_labels = None
depends_on = None

TABLES = ("networks", "subnets", "ports", "subnet_pools")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("revision_number", sa.BigInteger(), nullable=False, server_default="1"))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "revision_number")
