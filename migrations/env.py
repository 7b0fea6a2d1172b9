"""Alembic environment: runs migrations on the connection passed by `app.bootstrap.upgrade`."""

from alembic import context

import compute_api.models
import identity_api.models
import image_api.models
import network_api.models
from app.db.database import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
