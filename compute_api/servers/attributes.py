"""Attributes of servers that users set without a host's work: names, metadata, tags and locks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api.models import Server
from compute_api.servers import servers

TAGS_LIMIT = 50


def update(session: Session, now: datetime, server: Server, changes: Mapping[str, Any]) -> None:
    """Set attributes of the server. None is a value for the description only."""
    for name, value in changes.items():
        if value is not None or name == "description":
            setattr(server, name, value)
    server.updated_at = now
    session.flush()


def update_metadata(
    session: Session, now: datetime, caller: Caller, server: Server, items: Mapping[str, str], *, replace: bool = False
) -> dict[str, str]:
    """Add items to the metadata, or `replace` all of it, and return it. Raises Conflict, QuotaExceeded."""
    servers.check_lock(caller, server)
    metadata = dict(items) if replace else {**server.metadata_, **items}
    servers.check_metadata_quota(session, caller, metadata)
    server.metadata_ = metadata
    server.updated_at = now
    return metadata


def delete_metadata_item(now: datetime, caller: Caller, server: Server, key: str) -> None:
    """Remove one metadata item. Raises Conflict, NotFound."""
    servers.check_lock(caller, server)
    if key not in server.metadata_:
        raise errors.NotFound("Metadata item was not found")
    server.metadata_ = {name: value for name, value in server.metadata_.items() if name != key}
    server.updated_at = now


def set_tags(now: datetime, server: Server, tags: list[str]) -> None:
    """Replace all tags."""
    server.tags = tags
    server.updated_at = now


def add_tag(now: datetime, server: Server, tag: str) -> bool:
    """Add a tag; return whether it is new. Raises BadRequest when the server has too many tags."""
    if tag in server.tags:
        return False
    if len(server.tags) >= TAGS_LIMIT:
        raise errors.BadRequest(f"The number of tags exceeded the per-server limit {TAGS_LIMIT}")
    set_tags(now, server, sorted([*server.tags, tag]))
    return True


def remove_tag(now: datetime, server: Server, tag: str) -> None:
    """Remove a tag. Raises NotFound."""
    if tag not in server.tags:
        raise errors.NotFound(f"Server {server.id} has no tag '{tag}'")
    set_tags(now, server, [existing for existing in server.tags if existing != tag])


def lock(now: datetime, caller: Caller, server: Server, reason: str | None) -> None:
    """Lock the server against actions of everyone but admins."""
    server.locked, server.locked_reason = True, reason
    server.locked_by = "admin" if caller.is_admin else "owner"
    server.updated_at = now


def unlock(now: datetime, server: Server) -> None:
    """Unlock the server."""
    server.locked, server.locked_by, server.locked_reason = False, None, None
    server.updated_at = now
