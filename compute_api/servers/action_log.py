"""Action log of servers (os-instance-actions): lists of actions and the events of one action."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from compute_api.models import Server, ServerAction
from compute_api.operations import operations


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFilter:
    """Filters and page of an action list. The marker is a request id; `limit` None returns all actions."""

    changed_since: datetime | None = None
    changed_before: datetime | None = None
    limit: int | None = None
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """The part of one host in an action. A message means that it failed."""

    host: str | None
    started_at: datetime
    finished_at: datetime | None
    message: str | None


def list_actions(session: Session, server: Server, filters: ActionFilter) -> list[ServerAction]:
    """List the server's actions, newest first. Raises BadRequest for an unknown marker."""
    query = select(ServerAction).where(ServerAction.server_id == server.id).order_by(ServerAction.id.desc())
    if filters.marker:
        marker = select(ServerAction.id).where(
            ServerAction.server_id == server.id, ServerAction.request_id == filters.marker
        )
        if (last := session.scalar(marker)) is None:
            raise errors.BadRequest(f"marker [{filters.marker}] not found")
        query = query.where(ServerAction.id < last)
    if filters.changed_since is not None:
        query = query.where(ServerAction.updated_at >= filters.changed_since)
    if filters.changed_before is not None:
        query = query.where(ServerAction.updated_at <= filters.changed_before)
    return list(session.scalars(query if filters.limit is None else query.limit(filters.limit)))


def find_action(session: Session, server: Server, request_id: str) -> tuple[ServerAction, Sequence[ActionEvent]]:
    """Return the action of a request and its events, the last attempt first, then failed retries. Raises NotFound."""
    query = select(ServerAction).where(ServerAction.server_id == server.id, ServerAction.request_id == request_id)
    action = session.scalar(query)
    if action is None:
        raise errors.NotFound(f"Action for request_id {request_id} on instance {server.id} not found")
    attempts = operations.list_for_request(session, server.id, request_id)
    failed = [attempt for attempt in attempts[1:] if attempt.error]
    host, started_at = (attempts[0].host, attempts[0].created_at) if failed else (action.host, action.started_at)
    last = ActionEvent(host, started_at, action.finished_at, action.message)
    earlier = [ActionEvent(one.host, one.created_at, one.finished_at, one.error) for one in failed]
    return action, [last, *earlier]
