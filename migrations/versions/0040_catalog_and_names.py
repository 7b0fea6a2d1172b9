"""Add volumev3 to catalogs that have block-storage, and indexes for case-insensitive lookups of names."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0040_catalog_and_names"
down_revision = "0014_past_servers"
branch_labels = None
depends_on = None

BLOCK_STORAGE = "block-storage"
VOLUME_V3 = "volumev3"


def upgrade() -> None:
    for table in ("users", "projects"):
        op.create_index(f"ix_identity_{table}_lower_name", f"identity_{table}", [sa.text("lower(name)")])
    connection = op.get_bind()
    tables = sa.MetaData()
    services = sa.Table("identity_services", tables, autoload_with=connection)
    endpoints = sa.Table("identity_endpoints", tables, autoload_with=connection)
    epoch = sa.Table("identity_epoch", tables, autoload_with=connection)
    if connection.execute(sa.select(services.c.id).where(services.c.type == VOLUME_V3)).first() is not None:
        return
    old = connection.execute(sa.select(services).where(services.c.type == BLOCK_STORAGE)).mappings().first()
    if old is None:
        return
    new_id = uuid4().hex
    connection.execute(services.insert().values({**old, "id": new_id, "type": VOLUME_V3, "name": "cinderv3"}))
    for row in connection.execute(sa.select(endpoints).where(endpoints.c.service_id == old["id"])).mappings().all():
        connection.execute(endpoints.insert().values({**row, "id": uuid4().hex, "service_id": new_id}))
    connection.execute(epoch.update().values(value=epoch.c.value + 1))


def downgrade() -> None:
    for table in ("users", "projects"):
        op.drop_index(f"ix_identity_{table}_lower_name", f"identity_{table}")
