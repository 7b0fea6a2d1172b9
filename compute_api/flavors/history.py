"""Flavor history: the former flavors of servers with their end times, for usage reports."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api.models import Server, ServerSize


def record_old_flavor(session: Session, now: datetime, server: Server) -> None:
    """Record the server's current flavor, which ends now."""
    session.add(ServerSize(server_id=server.id, until=now, flavor=server.flavor))


def remove_reverted_flavor(session: Session, server: Server) -> None:
    """Remove the newest entry when the server has that flavor again, because the resize was undone."""
    session.flush()
    query = select(ServerSize).where(ServerSize.server_id == server.id).order_by(ServerSize.id.desc()).limit(1)
    newest = session.scalar(query)
    if newest is not None and newest.flavor == server.flavor:
        session.delete(newest)
