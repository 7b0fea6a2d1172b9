"""Port change hook, with which compute refreshes servers when their network, subnet or port changes."""

from collections.abc import Callable, Iterable

from flask import current_app
from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from network_api import PORT_CHANGE_HOOK
from network_api.models import Port

PortChangeHook = Callable[[Session, Iterable[str]], None]
"""Receives the transaction and the ids of the servers whose ports have changed."""


def notify_port_change(session: Session, which: ColumnElement[bool]) -> None:
    """Call the hook with the servers that own the ports matching `which`; without a hook nothing happens."""
    session.flush()
    servers = session.scalars(select(Port.device_id).where(which, Port.device_id != "").distinct())
    hook: PortChangeHook | None = current_app.extensions.get(PORT_CHANGE_HOOK)
    if hook is not None:
        hook(session, servers)
