"""What hosts and guests are told again when a network, subnet or port of running servers has changed."""

from flask import current_app
from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from app.web.context import clock
from compute_api import interfaces
from compute_api.routes.context import NUDGE, request_id
from network_api.models import Port


def tell_hosts(session: Session, which: ColumnElement[bool]) -> None:
    """After the commit, the hosts of the servers that have these ports go by what the database says now."""
    session.flush()
    session.info["nudge"] = current_app.extensions[NUDGE]
    servers = session.scalars(select(Port.device_id).where(which, Port.device_id != "").distinct())
    interfaces.refresh(session, clock().now(), servers, request_id())
