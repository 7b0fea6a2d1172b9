"""Add heartbeats in a table of their own, repeated notification of operations, and their errors."""

import sqlalchemy as sa
from alembic import op

from app.db.database import UtcDateTime

revision = "0006_liveness"
down_revision = "0004_compute"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """`fillfactor` leaves room on each page for the next heartbeat, so that no index has to follow."""
    op.create_table(
        "host_heartbeats",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("last_seen", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_host_heartbeats")),
        sa.ForeignKeyConstraint(
            ["host"], ["hosts.name"], name=op.f("fk_host_heartbeats_host_hosts"), ondelete="CASCADE"
        ),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE host_heartbeats SET (fillfactor = 50)")
    op.execute("INSERT INTO host_heartbeats (host, last_seen) SELECT name, last_seen FROM hosts")
    op.execute("ALTER TABLE hosts DROP COLUMN last_seen")
    op.add_column("operations", sa.Column("nudged_at", UtcDateTime(), nullable=True))
    op.add_column("operations", sa.Column("error", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("operations", "error")
    op.drop_column("operations", "nudged_at")
    op.add_column("hosts", sa.Column("last_seen", UtcDateTime(), nullable=True))
    op.execute("UPDATE hosts SET last_seen = (SELECT last_seen FROM host_heartbeats WHERE host = hosts.name)")
    with op.batch_alter_table("hosts") as table:
        table.alter_column("last_seen", existing_type=UtcDateTime(), nullable=False)
    op.drop_table("host_heartbeats")
