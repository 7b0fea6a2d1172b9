"""Server list queries: filters, sort order and keyset pagination in one query on the project's index."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, cast

import orjson
from sqlalchemy import ColumnElement, Select, Text, and_, bindparam, case, func, or_, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from app.db.database import Database
from compute_api import states
from compute_api.models import Server
from compute_api.servers import safe_regex
from network_api.models import Port

CONSTANT = Server.seq
"""Column of sort keys that have the same value for all servers, such as kernel_id."""

SORT_KEYS: dict[str, Any] = {
    "created_at": Server.seq,
    "updated_at": Server.updated_at,
    "display_name": Server.name,
    "name": Server.name,
    "uuid": Server.id,
    "vm_state": Server.vm_state,
    "task_state": Server.task_state,
    "power_state": Server.power_state,
    "host": Server.host,
    "node": Server.host,
    "image_ref": Server.image_id,
    "instance_type_id": Server.flavor_id,
    "project_id": Server.project_id,
    "user_id": Server.user_id,
    "launched_at": Server.launched_at,
    "terminated_at": Server.terminated_at,
    "availability_zone": Server.availability_zone,
    "access_ip_v4": Server.access_ipv4,
    "access_ip_v6": Server.access_ipv6,
    "key_name": Server.key["name"].as_string(),
    "display_description": Server.description,
    "hostname": Server.hostname,
    "launch_index": Server.launch_index,
    "locked_by": Server.locked_by,
    "locked": Server.locked,
    "config_drive": Server.config_drive,
    "auto_disk_config": Server.disk_config,
    "kernel_id": CONSTANT,
    "ramdisk_id": CONSTANT,
    "root_device_name": CONSTANT,
    "progress": CONSTANT,
}
"""Columns by Nova's sort keys. `seq` grows with the creation time and replaces it."""

NULLABLE = {
    "task_state",
    "host",
    "node",
    "launched_at",
    "terminated_at",
    "key_name",
    "display_description",
    "locked_by",
}


PATTERN_COLUMNS = {
    "availability_zone": "availability_zone",
    "hostname": "hostname",
    "description": "description",
    "access_ipv4": "access_ip_v4",
    "access_ipv6": "access_ip_v6",
}
"""Columns that are filtered by a regular expression, as in Nova, and the names of their query parameters."""


class ServerKey(NamedTuple):
    """Key of a cached server entry: the server and its revision. Rows of a query have the same layout."""

    seq: int
    id: str
    revision: int


_ROW = Server.__table__.c
_KEYS = select(_ROW.seq, _ROW.id, _ROW.revision)
_BY_ID = _KEYS.where(_ROW.id == bindparam("server_id"), _ROW.deleted.is_(False))
_BY_ID_IN_PROJECT = _BY_ID.where(_ROW.project_id == bindparam("project"))
_OF_PROJECT = (
    _KEYS.where(_ROW.project_id == bindparam("project"), _ROW.deleted.is_(False))
    .order_by(_ROW.seq.desc())
    .limit(bindparam("most"))
)
"""Statements of the requests that clients poll with, built once: building a statement takes longer than running it."""
_ID = re.compile(r"[0-9a-fA-F-]{36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFilter:
    """Filters, order and page of a server list.

    `project_id` None means all projects, `deleted` None both deleted and existing servers. `equal` maps column names of
    `Server` to values; for PATTERN_COLUMNS the value is a regular expression, as in Nova. `sort` holds pairs of a name
    of SORT_KEYS and whether the order is descending.
    """

    project_id: str | None
    deleted: bool | None = False
    name: str | None = None
    statuses: tuple[str, ...] = ()
    equal: dict[str, Any] = field(default_factory=dict)
    key_name: str | None = None
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
    limit: int = 1000
    marker: str | None = None

    @property
    def has_patterns(self) -> bool:
        """Return whether any filter is a regular expression."""
        texts = (self.name, self.ip, self.ip6)
        return any(text is not None for text in texts) or not PATTERN_COLUMNS.keys().isdisjoint(self.equal)


def find_key(database: Database, caller: Caller, server_id: str) -> ServerKey:
    """Return the key of one of the caller's servers; admins find servers of all projects. Raises NotFound."""
    query, values = (_BY_ID, {}) if caller.is_admin else (_BY_ID_IN_PROJECT, {"project": caller.project})
    rows = database.prepared_reads.rows(query, {"server_id": server_id, **values}) if _ID.fullmatch(server_id) else []
    if not rows:
        raise errors.NotFound(f"Instance {server_id} could not be found.")
    return cast(ServerKey, rows[0])


def list_keys(database: Database, filters: ServerFilter) -> list[ServerKey]:
    """List the keys of a page of servers. Raises BadRequest, see `page_query`."""
    if filters == ServerFilter(project_id=filters.project_id, limit=filters.limit) and filters.project_id is not None:
        values = {"project": filters.project_id, "most": filters.limit}
        return cast("list[ServerKey]", database.prepared_reads.rows(_OF_PROJECT, values))
    with _reading(database, filters) as session:
        return cast("list[ServerKey]", session.execute(page_query(session, _KEYS, filters)).all())


def list_names(database: Database, filters: ServerFilter) -> Sequence[tuple[str, str]]:
    """List the ids and names of a page of servers. Raises BadRequest, see `page_query`."""
    with _reading(database, filters) as session:
        query = page_query(session, select(Server.id, Server.name), filters)
        return cast("Sequence[tuple[str, str]]", session.execute(query).all())


def _reading(database: Database, filters: ServerFilter) -> AbstractContextManager[Session]:
    return database.reading_with_patterns() if filters.has_patterns else database.reading()


def load_servers(session: Session, sequence: Sequence[int]) -> list[Server]:
    """Load the servers with these sequence numbers, in any order, 500 to a query."""
    servers: list[Server] = []
    for start in range(0, len(sequence), 500):
        servers += session.scalars(select(Server).where(Server.seq.in_(sequence[start : start + 500])))
    return servers


def page_query(session: Session, query: Select[*tuple[Any, ...]], filters: ServerFilter) -> Select[*tuple[Any, ...]]:
    """Add filters, order and limit to the query. Raises BadRequest for an unknown marker or an invalid pattern."""
    ordered: list[tuple[Any, bool]] = []
    for name, descending in filters.sort:
        if name in NULLABLE:
            ordered.append((case((SORT_KEYS[name].is_(None), 1), else_=0), descending))
        ordered.append((SORT_KEYS[name], descending))
    if not any(column is Server.seq for column, _ in ordered):
        ordered.append((Server.seq, filters.sort[0][1] if filters.sort else True))
    query = query.where(*_conditions(filters)).limit(filters.limit)
    if filters.marker:
        query = query.where(_after_marker(session, filters, ordered))
    return query.order_by(*(column.desc() if descending else column.asc() for column, descending in ordered))


def _conditions(filters: ServerFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.project_id is not None:
        conditions.append(Server.project_id == filters.project_id)
    if filters.deleted is not None:
        conditions.append(Server.deleted.is_(filters.deleted))
    if filters.name is not None:
        conditions.append(Server.name.regexp_match(safe_regex.check_pattern("name", filters.name)))
    if filters.statuses:
        conditions.append(_status_condition(filters.statuses))
    conditions.extend(_equality_condition(name, value) for name, value in filters.equal.items())
    if filters.key_name is not None:
        conditions.append(Server.key["name"].as_string() == filters.key_name)
    if filters.ip is not None:
        pattern = safe_regex.check_pattern("ip", filters.ip)
        addresses = or_(Port.ip_address.regexp_match(pattern), Port.ipv4_address.regexp_match(pattern))
        conditions.append(Server.id.in_(select(Port.device_id).where(addresses)))
    if filters.ip6 is not None:
        matching = select(Port.device_id).where(
            Port.ip_address.regexp_match(safe_regex.check_pattern("ip6", filters.ip6))
        )
        conditions.append(Server.id.in_(matching))
    if filters.changed_since is not None:
        conditions.append(Server.updated_at >= filters.changed_since)
    if filters.changed_before is not None:
        conditions.append(Server.updated_at <= filters.changed_before)
    conditions.extend(_has_tag(tag) for tag in filters.tags)
    conditions.extend(~_has_tag(tag) for tag in filters.not_tags_any)
    if filters.tags_any:
        conditions.append(or_(*map(_has_tag, filters.tags_any)))
    if filters.not_tags:
        conditions.append(~and_(*map(_has_tag, filters.not_tags)))
    conditions.extend(Server.metadata_[name].as_string() == value for name, value in filters.metadata.items())
    return conditions


def _equality_condition(name: str, value: Any) -> ColumnElement[bool]:
    """Compare a column with a value or pattern. accessIPv4 defaults to the IPv4 address mapped to a port."""
    column = getattr(Server, name)
    if name not in PATTERN_COLUMNS:
        equal: ColumnElement[bool] = column == value
        return equal
    pattern = safe_regex.check_pattern(PATTERN_COLUMNS[name], value)
    matches = and_(column != "", column.regexp_match(pattern))
    if name != "access_ipv4":
        return matches
    mapped = select(Port.device_id).where(Port.ipv4_address.regexp_match(pattern))
    return or_(matches, and_(Server.access_ipv4 == "", Server.id.in_(mapped)))


def _has_tag(tag: str) -> ColumnElement[bool]:
    """Search the JSON text for the quoted tag: case-sensitive and portable between SQLite and PostgreSQL."""
    text = sql_cast(Server.tags, Text)
    return func.replace(text, orjson.dumps(tag).decode(), "") != text


def _status_condition(statuses: Sequence[str]) -> ColumnElement[bool]:
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


def _after_marker(session: Session, filters: ServerFilter, ordered: Sequence[tuple[Any, bool]]) -> ColumnElement[bool]:
    """Keyset condition for the rows after the marker: the cost of a page does not depend on its position."""
    query = select(*(column for column, _ in ordered)).where(Server.id == filters.marker)
    if filters.project_id is not None:
        query = query.where(Server.project_id == filters.project_id)
    last = session.execute(query).one_or_none()
    if last is None:
        raise errors.BadRequest(f"marker [{filters.marker}] not found")
    either: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for (column, descending), value in zip(ordered, last, strict=True):
        if value is None:
            equal.append(column.is_(None))
            continue
        either.append(and_(*equal, column < value if descending else column > value))
        equal.append(column == value)
    return or_(*either)
