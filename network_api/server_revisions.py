"""Revisions of servers: a change of what the compute API shows of a server's ports increments the server's revision.

Compute registers the function that writes its table, as services write their own tables only.
"""

from collections.abc import Callable, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from network_api.models import Port

Increment = Callable[[Session, Iterable[str]], None]
"""Increments the revision of the servers with these ids, in the given transaction."""

_hooks: list[Increment] = []


def register(increment: Increment) -> None:
    """Register compute's function. Process-wide, as hosts' completions change ports outside of requests."""
    _hooks.append(increment)


def touch_servers(session: Session, ports: ColumnElement[bool]) -> None:
    """Increment the revisions of the servers that the matching ports are bound to; call it before ports are unbound."""
    server_ids = session.scalars(select(Port.device_id).where(ports, Port.device_id != "").distinct()).all()
    if server_ids:
        for increment in _hooks:
            increment(session, server_ids)
