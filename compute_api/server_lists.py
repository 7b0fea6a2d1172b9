"""Lists of servers: filters, order and pages, all in one query on the project's index."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app import errors
from compute_api import states
from compute_api.models import Server
from network_api.models import Port

SORT_KEYS: dict[str, InstrumentedAttribute[Any]] = {
    "created_at": Server.created_at,
    "updated_at": Server.updated_at,
    "display_name": Server.name,
    "name": Server.name,
    "uuid": Server.id,
    "id": Server.id,
    "vm_state": Server.vm_state,
    "task_state": Server.task_state,
    "power_state": Server.power_state,
    "host": Server.host,
    "image_ref": Server.image_id,
    "instance_type_id": Server.flavor_id,
    "project_id": Server.project_id,
    "user_id": Server.user_id,
    "launched_at": Server.launched_at,
    "terminated_at": Server.terminated_at,
    "availability_zone": Server.availability_zone,
    "access_ip_v4": Server.access_ipv4,
    "access_ip_v6": Server.access_ipv6,
    "key_name": Server.seq,
    "display_description": Server.description,
    "hostname": Server.hostname,
    "launch_index": Server.launch_index,
    "locked": Server.locked,
    "config_drive": Server.config_drive,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which servers, in which order. `project_id` None means those of all projects; `deleted` None means both kinds."""

    project_id: str | None
    deleted: bool | None = False
    name: str | None = None
    statuses: tuple[str, ...] = ()
    equal: dict[str, Any] = field(default_factory=dict)
    ip6: str | None = None
    ip: str | None = None
    changed_since: datetime | None = None
    changed_before: datetime | None = None
    tags: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ()
    not_tags_any: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    sort: tuple[tuple[str, bool], ...] = (("created_at", True),)
    """Keys and whether they descend."""
    limit: int = 1000
    marker: str | None = None


def listed(session: Session, wanted: Wanted) -> list[Server]:
    """The page of servers. BadRequest for a marker or sort key that does not exist, or a pattern that is none."""
    query = select(Server).where(*_conditions(wanted)).limit(wanted.limit)
    keys = [(_column(name), descending) for name, descending in wanted.sort]
    newest_first = keys[0][1] if keys else True
    ordered = [*((column, descending) for column, descending in keys if column is not Server.created_at)]
    if any(column is Server.created_at for column, _ in keys) or not ordered:
        descending = next((down for column, down in keys if column is Server.created_at), True)
        ordered = [(Server.seq if column is Server.created_at else column, down) for column, down in keys] or [
            (Server.seq, descending)
        ]
    if not any(column is Server.seq for column, _ in ordered):
        ordered.append((Server.seq, newest_first))
    if wanted.marker:
        query = query.where(_after(session, wanted.marker, ordered))
    query = query.order_by(*(column.desc() if descending else column.asc() for column, descending in ordered))
    return list(session.scalars(query))


def _column(name: str) -> InstrumentedAttribute[Any]:
    if name not in SORT_KEYS:
        raise errors.BadRequest(f"Invalid input for query parameters sort_key. Value: {name}. It is not one of them.")
    return SORT_KEYS[name]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    made: list[ColumnElement[bool]] = []
    if wanted.project_id is not None:
        made.append(Server.project_id == wanted.project_id)
    if wanted.deleted is not None:
        made.append(Server.deleted.is_(wanted.deleted))
    if wanted.name is not None:
        made.append(Server.name.regexp_match(_pattern(wanted.name)))
    if wanted.statuses:
        made.append(_status(wanted.statuses))
    made.extend(getattr(Server, name) == value for name, value in wanted.equal.items())
    if wanted.ip6 is not None:
        matching = select(Port.device_id).where(Port.ip_address.regexp_match(_pattern(wanted.ip6)))
        made.append(Server.id.in_(matching))
    if wanted.ip is not None:
        _pattern(wanted.ip)
        made.append(Server.seq < 0)
    if wanted.changed_since is not None:
        made.append(Server.updated_at >= wanted.changed_since)
    if wanted.changed_before is not None:
        made.append(Server.updated_at <= wanted.changed_before)
    return made


def _status(statuses: Sequence[str]) -> ColumnElement[bool]:
    either: list[ColumnElement[bool]] = []
    for status in statuses:
        if tasks := states.tasks_of(status):
            either.append(Server.task_state.in_(tasks))
        elif resting := states.vm_states_of(status):
            busy = [task for task in states.TaskState if states.status("active", task) != "ACTIVE"]
            either.append(
                and_(Server.vm_state.in_(resting), or_(Server.task_state.is_(None), Server.task_state.not_in(busy)))
            )
    return or_(*either) if either else Server.seq < 0


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error:
        raise errors.BadRequest(
            f"Invalid input for query parameters. Value: {text}. It is no regular expression."
        ) from None
    return text


def _after(
    session: Session, marker: str, ordered: Sequence[tuple[InstrumentedAttribute[Any], bool]]
) -> ColumnElement[bool]:
    """Behind the marker in the order: keyset, so a page costs the same wherever it is."""
    last = session.scalar(select(Server).where(Server.id == marker))
    if last is None:
        raise errors.BadRequest(f"marker [{marker}] not found")
    either: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for column, descending in ordered:
        at = getattr(last, column.key)
        if at is None:
            same.append(column.is_(None))
            continue
        either.append(and_(*same, column < at if descending else column > at))
        same.append(column == at)
    return or_(*either)
