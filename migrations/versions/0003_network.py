"""Create the network tables: networks, subnets, ports, subnet pools, segment ranges, quotas."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003_network"
down_revision = "0002_image"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "subnet_pools",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("prefixes", JSON, nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subnet_pools"),
    )
    op.create_table(
        "segment_ranges",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("first_vni", sa.Integer(), nullable=False),
        sa.Column("last_vni", sa.Integer(), nullable=False),
        sa.Column("next_vni", sa.Integer(), nullable=False),
        sa.Column("mtu", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_segment_ranges"),
    )
    op.create_table(
        "networks",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("vni", sa.Integer(), nullable=False),
        sa.Column("mtu", sa.Integer(), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_networks"),
        sa.UniqueConstraint("vni", name="uq_networks_vni"),
    )
    op.create_index("ix_networks_project_id", "networks", ["project_id"])
    op.create_table(
        "subnets",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("network_id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("subnet_pool_id", sa.String(36), nullable=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("cidr", sa.String(43), nullable=False),
        sa.Column("gateway_ip", sa.String(39), nullable=True),
        sa.Column("dns_nameservers", JSON, nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subnets"),
        sa.ForeignKeyConstraint(
            ["network_id"], ["networks.id"], name="fk_subnets_network_id_networks", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["subnet_pool_id"], ["subnet_pools.id"], name="fk_subnets_subnet_pool_id_subnet_pools"),
        sa.UniqueConstraint("network_id", name="uq_subnets_network_id"),
        sa.UniqueConstraint("cidr", name="uq_subnets_cidr"),
    )
    op.create_index("ix_subnets_project_id", "subnets", ["project_id"])
    op.create_index("ix_subnets_subnet_pool_id", "subnets", ["subnet_pool_id"])
    op.create_table(
        "ports",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("network_id", sa.String(36), nullable=False),
        sa.Column("subnet_id", sa.String(36), nullable=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("device_id", sa.String(255), nullable=False),
        sa.Column("device_owner", sa.String(255), nullable=False),
        sa.Column("attached", sa.BigInteger(), nullable=False),
        sa.Column("of_server", sa.Boolean(), nullable=False),
        sa.Column("mac_address", sa.String(17), nullable=False),
        sa.Column("ip_address", sa.String(39), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("binding_host", sa.String(255), nullable=True),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ports"),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name="fk_ports_network_id_networks"),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"], name="fk_ports_subnet_id_subnets"),
        sa.UniqueConstraint("mac_address", name="uq_ports_mac_address"),
        sa.UniqueConstraint("ip_address", name="uq_ports_ip_address"),
    )
    for column in ("network_id", "subnet_id", "project_id", "device_id"):
        op.create_index(f"ix_ports_{column}", "ports", [column])
    op.create_table(
        "network_quotas",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("network", sa.Integer(), nullable=True),
        sa.Column("subnet", sa.Integer(), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("subnetpool", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", name="pk_network_quotas"),
    )


def downgrade() -> None:
    for table in ("network_quotas", "ports", "subnets", "networks", "segment_ranges", "subnet_pools"):
        op.drop_table(table)
