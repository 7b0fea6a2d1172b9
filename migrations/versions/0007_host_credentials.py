"""Add remote hosts and their credentials."""

import sqlalchemy as sa
from alembic import op

from app.db.database import UtcDateTime

revision = "0007_host_credentials"
down_revision = "0008_migrations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "host_credentials",
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("host_credentials")
