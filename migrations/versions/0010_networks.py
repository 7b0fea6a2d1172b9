"""Add isolation of guests, allowed address pairs and IPv4 addresses of ports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_networks"
down_revision = "0006_liveness"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
BEFORE = "device_id, mac_address, ip_address, network_id"
AFTER = f"{BEFORE}, ipv4_address"


def upgrade() -> None:
    op.add_column("networks", sa.Column("isolated", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("ports", sa.Column("allowed_address_pairs", JSON, nullable=False, server_default="[]"))
    op.add_column("ports", sa.Column("ipv4_address", sa.String(15), nullable=True))
    op.create_index("ix_ports_ipv4_address", "ports", ["ipv4_address"], unique=True)
    _show_changes_of(AFTER)


def downgrade() -> None:
    _show_changes_of(BEFORE)
    op.drop_index("ix_ports_ipv4_address", "ports")
    op.drop_column("ports", "ipv4_address")
    op.drop_column("ports", "allowed_address_pairs")
    op.drop_column("networks", "isolated")


def _show_changes_of(columns: str) -> None:
    """A change of these columns moves the revision of the server that has the port."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER ports_changed ON ports")
        op.execute(
            f"CREATE TRIGGER ports_changed AFTER INSERT OR DELETE OR UPDATE OF {columns} ON ports "
            "FOR EACH ROW EXECUTE FUNCTION server_shown()"
        )
    else:
        op.execute("DROP TRIGGER ports_changed")
        op.execute(
            f"CREATE TRIGGER ports_changed AFTER UPDATE OF {columns} ON ports "
            "BEGIN UPDATE servers SET revision = revision + 1 WHERE id IN (OLD.device_id, NEW.device_id); END"
        )
