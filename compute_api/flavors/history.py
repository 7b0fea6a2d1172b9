"""Which sizes a server has had: a row for each one that is over, so that usage counts every second as what it was."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api.models import Server, ServerSize


def record_old_flavor(session: Session, now: datetime, server: Server) -> None:
    """The server is about to get another flavor: until now it had this one."""
    session.add(ServerSize(server_id=server.id, until=now, flavor=server.flavor))


def remove_reverted_flavor(session: Session, server: Server) -> None:
    """The server has its old flavor again, as it never got the other one: it has had this one all along."""
    session.flush()
    query = select(ServerSize).where(ServerSize.server_id == server.id).order_by(ServerSize.id.desc()).limit(1)
    newest = session.scalar(query)
    if newest is not None and newest.flavor == server.flavor:
        session.delete(newest)
