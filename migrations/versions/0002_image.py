"""Create the tables of images, image members and imports."""

import sqlalchemy as sa
from alembic import op

from app.db.database import Json, UtcDateTime

revision = "0002_image"
down_revision = "0001_identity"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("visibility", sa.String(20), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("protected", sa.Boolean, nullable=False),
        sa.Column("os_hidden", sa.Boolean, nullable=False),
        sa.Column("disk_format", sa.String(20)),
        sa.Column("container_format", sa.String(20)),
        sa.Column("stored_format", sa.String(20)),
        sa.Column("compression", sa.String(20)),
        sa.Column("size", sa.BigInteger),
        sa.Column("virtual_size", sa.BigInteger),
        sa.Column("disk_size", sa.BigInteger),
        sa.Column("disk_hash", sa.String(128)),
        sa.Column("min_disk", sa.Integer, nullable=False),
        sa.Column("min_ram", sa.Integer, nullable=False),
        sa.Column("checksum", sa.String(32)),
        sa.Column("os_hash_algo", sa.String(64)),
        sa.Column("os_hash_value", sa.String(128)),
        sa.Column("properties", Json, nullable=False),
        sa.Column("tags", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("writer", sa.String(36)),
        sa.Column("writer_host", sa.String(255)),
        sa.Column("writer_until", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
    )
    op.create_index("ix_images_name", "images", ["name"])
    op.create_index("ix_images_visibility", "images", ["visibility"])
    op.create_index("ix_images_owner_created_at", "images", ["owner", "created_at"])
    op.create_table(
        "image_members",
        sa.Column("image_id", sa.String(36), nullable=False),
        sa.Column("member", sa.String(255), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "member", name="pk_image_members"),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name="fk_image_members_image_id_images", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_image_members_member", "image_members", ["member"])
    op.create_table(
        "image_tasks",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("image_id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("method", sa.String(40), nullable=False),
        sa.Column("uri", sa.Text),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("worker", sa.String(36)),
        sa.Column("worker_host", sa.String(255)),
        sa.Column("worker_until", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_image_tasks"),
    )
    op.create_index("ix_image_tasks_image_id", "image_tasks", ["image_id"])
    op.create_index("ix_image_tasks_owner", "image_tasks", ["owner"])
    op.create_index("ix_image_tasks_status", "image_tasks", ["status"])


def downgrade() -> None:
    op.drop_table("image_tasks")
    op.drop_table("image_members")
    op.drop_table("images")
