"""Which sizes a server has had: a row for each one that is over, so that usage counts every second as what it was."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from compute_api.models import Server, ServerSize


def over(session: Session, now: datetime, server: Server) -> None:
    """The server is about to get another flavor: until now it had this one."""
    session.add(ServerSize(server_id=server.id, until=now, flavor=server.flavor))


def not_over(session: Session, server: Server) -> None:
    """The server did not get its other flavor, and has had this one all along."""
    session.flush()
    newest = select(func.max(ServerSize.id)).where(ServerSize.server_id == server.id).scalar_subquery()
    session.execute(delete(ServerSize).where(ServerSize.id == newest).execution_options(synchronize_session=False))
