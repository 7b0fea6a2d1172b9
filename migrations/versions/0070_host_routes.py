"""Add the routes that a subnet announces to its servers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0070_host_routes"
down_revision = "0061_disk_is_low"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("subnets", sa.Column("host_routes", JSON, nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("subnets", "host_routes")
