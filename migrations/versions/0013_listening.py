"""Add the heartbeat watermark: the time until which heartbeats are known to have been received."""

import sqlalchemy as sa
from alembic import op

from app.db.database import UtcDateTime

revision = "0013_listening"
down_revision = "0012_consoles"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "listening",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("silent_before", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listening")),
    )


def downgrade() -> None:
    op.drop_table("listening")
