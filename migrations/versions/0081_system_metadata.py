"""Rename servers.aside to system_metadata and the table listening to heartbeat_watermark."""

from alembic import op

revision = "0081_system_metadata"
down_revision = "0080_catalog_volume"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE servers RENAME COLUMN aside TO system_metadata")
    op.rename_table("listening", "heartbeat_watermark")


def downgrade() -> None:
    op.rename_table("heartbeat_watermark", "listening")
    op.execute("ALTER TABLE servers RENAME COLUMN system_metadata TO aside")
