"""Startup recovery: releases claims of dead processes and removes orphaned objects."""

import logging
from datetime import timedelta

from sqlalchemy import select, update

from app.core.clock import Clock, SystemClock
from app.core.settings import Settings
from app.db.database import Database
from image_api import images
from image_api.imports import uploads
from image_api.models import Image
from image_api.states import ImageStatus
from image_api.stores import process_identity
from image_api.stores.factory import make_store
from image_api.stores.file import Store
from image_api.stores.object_keys import image_id_of

log = logging.getLogger(__name__)


def recover(settings: Settings, clock: Clock | None = None) -> None:
    """Recover before the API serves requests. Requires a migrated database; safe while other processes of the
    installation run."""
    clock = clock or SystemClock()
    database = Database(settings.database, synchronous=settings.sqlite_synchronous, pool_size=2)
    try:
        store = make_store(settings)
        store.remove_abandoned_parts()
        with database.transaction() as session:
            images.release_dead_claims(session, clock.now())
        remove_orphans(database, store, clock)
    finally:
        database.dispose()


def remove_orphans(database: Database, store: Store, clock: Clock) -> None:
    """Remove objects of deleted and queued images.

    Objects are listed before rows are read: a row always exists before its first object, so an upload that starts
    during the scan is safe.
    """
    names = list(store.names())
    for image_id in {image_id_of(name) for name in names}:
        with database.reading() as session:
            status = session.scalar(select(Image.status).where(Image.id == image_id))
        if status is None:
            log.info("removing orphaned objects of image %s", image_id)
            images.delete_objects(store, image_id)
        elif status == ImageStatus.QUEUED:
            _clean_queued(database, store, clock, image_id)


def _clean_queued(database: Database, store: Store, clock: Clock, image_id: str) -> None:
    """Delete the objects of a queued image under an upload claim, which excludes concurrent uploads."""
    until = clock.now() + timedelta(seconds=uploads.LEASE_SECONDS)
    with database.transaction() as session:
        claimed = session.scalar(
            update(Image)
            .where(Image.id == image_id, Image.status == ImageStatus.QUEUED)
            .values(
                status=ImageStatus.SAVING, writer=image_id, writer_host=process_identity.current(), writer_until=until
            )
            .returning(Image.id)
            .execution_options(synchronize_session=False)
        )
    if claimed is not None:
        images.delete_objects(store, image_id)
        with database.transaction() as session:
            uploads.release(session, image_id, image_id, clock.now())
