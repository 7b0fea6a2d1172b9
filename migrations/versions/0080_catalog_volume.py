"""Add the service type `volume` to catalogs that have block-storage, for clients that know no other type."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0080_catalog_volume"
down_revision = "0071_port_triggers"
branch_labels = None
depends_on = None

BLOCK_STORAGE = "block-storage"
VOLUME = "volume"


def upgrade() -> None:
    connection = op.get_bind()
    tables = sa.MetaData()
    services = sa.Table("identity_services", tables, autoload_with=connection)
    endpoints = sa.Table("identity_endpoints", tables, autoload_with=connection)
    epoch = sa.Table("identity_epoch", tables, autoload_with=connection)
    if connection.execute(sa.select(services.c.id).where(services.c.type == VOLUME)).first() is not None:
        return
    source = connection.execute(sa.select(services).where(services.c.type == BLOCK_STORAGE)).mappings().first()
    if source is None:
        return
    service_id = uuid4().hex
    connection.execute(services.insert().values({**source, "id": service_id, "type": VOLUME, "name": "cinder"}))
    rows = connection.execute(sa.select(endpoints).where(endpoints.c.service_id == source["id"])).mappings().all()
    for row in rows:
        connection.execute(endpoints.insert().values({**row, "id": uuid4().hex, "service_id": service_id}))
    connection.execute(epoch.update().values(value=epoch.c.value + 1))


def downgrade() -> None:
    """Keep the service: operators may use it."""
