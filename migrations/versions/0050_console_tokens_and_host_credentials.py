"""Limit the uses of console tokens and keep their issuer; make room for sealed host credentials.

Existing console tokens, which live for ten minutes, are deleted. `sixstack up`, which has the keys, seals existing host
credentials.
"""

import sqlalchemy as sa
from alembic import op

revision = "0050_console_tokens"
down_revision = "0043_network_revisions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM console_tokens")
    with op.batch_alter_table("console_tokens") as table:
        table.add_column(sa.Column("issuer", sa.LargeBinary(), nullable=False))
        table.add_column(sa.Column("uses_left", sa.Integer(), nullable=False))
    with op.batch_alter_table("host_credentials") as table:
        table.alter_column("secret_hash", new_column_name="sealed_hash", existing_type=sa.String(64), type_=sa.Text())


def downgrade() -> None:
    with op.batch_alter_table("host_credentials") as table:
        table.alter_column("sealed_hash", new_column_name="secret_hash", existing_type=sa.Text(), type_=sa.String(64))
    with op.batch_alter_table("console_tokens") as table:
        table.drop_column("uses_left")
        table.drop_column("issuer")
