"""Port change hook, with which compute refreshes servers when their network, subnet or port changes."""

from collections.abc import Callable, Iterable

from flask import current_app
from sqlalchemy.orm import Session

from network_api import PORT_CHANGE_HOOK

PortChangeHook = Callable[[Session, Iterable[str]], None]
"""Receives the transaction and the ids of the servers whose ports have changed."""


def notify_port_change(session: Session, server_ids: Iterable[str]) -> None:
    """Call the hook with these servers; without a hook nothing happens."""
    hook: PortChangeHook | None = current_app.extensions.get(PORT_CHANGE_HOOK)
    if hook is not None:
        hook(session, server_ids)
