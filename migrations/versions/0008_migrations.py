"""Add migrations of servers between hosts, and resizes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.database import UtcDateTime

revision = "0008_migrations"
down_revision = "0010_networks"
branch_labels = None
depends_on = None

SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "migrations",
        sa.Column("id", SEQ, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("migration_type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("source_compute", sa.String(length=255), nullable=False),
        sa.Column("dest_compute", sa.String(length=255), nullable=False),
        sa.Column("dest_host", sa.String(length=45), nullable=True),
        sa.Column("old_flavor", sa.Integer(), nullable=True),
        sa.Column("new_flavor", sa.Integer(), nullable=True),
        sa.Column("exchange", JSON, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migrations")),
        sa.UniqueConstraint("uuid", name=op.f("uq_migrations_uuid")),
    )
    op.create_index(op.f("ix_migrations_server_id"), "migrations", ["server_id"], unique=False)
    op.create_index(op.f("ix_migrations_status"), "migrations", ["status"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_migrations_status"), table_name="migrations")
    op.drop_index(op.f("ix_migrations_server_id"), table_name="migrations")
    op.drop_table("migrations")
