"""Lists of servers: filters, order and pages, all in one query on the project's index."""

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
"""Stands for a sort key that is the same for all servers here, such as the kernel's image."""

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
"""By Nova's names; numbers of rows grow with time, so they stand for the time of creation."""

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
"""Columns that Nova holds a regular expression against, and what that is called in the query."""


class ServerKey(NamedTuple):
    """A server in a list, and which version of what is shown of it. A row of a query is as good."""

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
"""The reads that clients poll with, built once: building a statement takes longer than running it."""
_ID = re.compile(r"[0-9a-fA-F-]{36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFilter:
    """Which servers, in which order. `project_id` None means those of all projects; `deleted` None means both kinds.

    `equal` is by column names of `Server`; for those in PATTERNS it is a regular expression that the column has to
    match, as in Nova. `sort` are names of SORT_KEYS and whether they descend.
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
        """Whether any filter is a regular expression."""
        texts = (self.name, self.ip, self.ip6)
        return any(text is not None for text in texts) or not PATTERN_COLUMNS.keys().isdisjoint(self.equal)


def find_key(database: Database, caller: Caller, server_id: str) -> ServerKey:
    """One of the caller's servers; an admin finds every project's. Raises NotFound."""
    query, values = (_BY_ID, {}) if caller.is_admin else (_BY_ID_IN_PROJECT, {"project": caller.project})
    found = database.prepared_reads.rows(query, {"server_id": server_id, **values}) if _ID.fullmatch(server_id) else []
    if not found:
        raise errors.NotFound(f"Instance {server_id} could not be found.")
    return cast(ServerKey, found[0])


def list_keys(database: Database, wanted: ServerFilter) -> list[ServerKey]:
    """The page of servers, as what tells whether they are known already. Raises BadRequest, see `page`."""
    if wanted == ServerFilter(project_id=wanted.project_id, limit=wanted.limit) and wanted.project_id is not None:
        values = {"project": wanted.project_id, "most": wanted.limit}
        return cast("list[ServerKey]", database.prepared_reads.rows(_OF_PROJECT, values))
    with _reading(database, wanted) as session:
        return cast("list[ServerKey]", session.execute(page_query(session, _KEYS, wanted)).all())


def list_names(database: Database, wanted: ServerFilter) -> Sequence[tuple[str, str]]:
    """The page of servers as ids and names. Raises BadRequest, see `page`."""
    with _reading(database, wanted) as session:
        query = page_query(session, select(Server.id, Server.name), wanted)
        return cast("Sequence[tuple[str, str]]", session.execute(query).all())


def _reading(database: Database, wanted: ServerFilter) -> AbstractContextManager[Session]:
    return database.reading_with_patterns() if wanted.has_patterns else database.reading()


def load_servers(session: Session, sequence: Sequence[int]) -> list[Server]:
    """The servers with these numbers, in any order; a few hundred of them to a query."""
    found: list[Server] = []
    for at in range(0, len(sequence), 500):
        found += session.scalars(select(Server).where(Server.seq.in_(sequence[at : at + 500])))
    return found


def page_query(session: Session, query: Select[*tuple[Any, ...]], wanted: ServerFilter) -> Select[*tuple[Any, ...]]:
    """The query, narrowed to the page. BadRequest for a marker that does not exist, or a pattern that is none."""
    ordered: list[tuple[Any, bool]] = []
    for name, descending in wanted.sort:
        if name in NULLABLE:
            ordered.append((case((SORT_KEYS[name].is_(None), 1), else_=0), descending))
        ordered.append((SORT_KEYS[name], descending))
    if not any(column is Server.seq for column, _ in ordered):
        ordered.append((Server.seq, wanted.sort[0][1] if wanted.sort else True))
    query = query.where(*_conditions(wanted)).limit(wanted.limit)
    if wanted.marker:
        query = query.where(_after_marker(session, wanted, ordered))
    return query.order_by(*(column.desc() if descending else column.asc() for column, descending in ordered))


def _conditions(wanted: ServerFilter) -> list[ColumnElement[bool]]:
    made: list[ColumnElement[bool]] = []
    if wanted.project_id is not None:
        made.append(Server.project_id == wanted.project_id)
    if wanted.deleted is not None:
        made.append(Server.deleted.is_(wanted.deleted))
    if wanted.name is not None:
        made.append(Server.name.regexp_match(safe_regex.check_pattern("name", wanted.name)))
    if wanted.statuses:
        made.append(_status_condition(wanted.statuses))
    made.extend(_equality_condition(name, value) for name, value in wanted.equal.items())
    if wanted.key_name is not None:
        made.append(Server.key["name"].as_string() == wanted.key_name)
    if wanted.ip is not None:
        pattern = safe_regex.check_pattern("ip", wanted.ip)
        addresses = or_(Port.ip_address.regexp_match(pattern), Port.ipv4_address.regexp_match(pattern))
        made.append(Server.id.in_(select(Port.device_id).where(addresses)))
    if wanted.ip6 is not None:
        matching = select(Port.device_id).where(
            Port.ip_address.regexp_match(safe_regex.check_pattern("ip6", wanted.ip6))
        )
        made.append(Server.id.in_(matching))
    if wanted.changed_since is not None:
        made.append(Server.updated_at >= wanted.changed_since)
    if wanted.changed_before is not None:
        made.append(Server.updated_at <= wanted.changed_before)
    made.extend(_has_tag(tag) for tag in wanted.tags)
    made.extend(~_has_tag(tag) for tag in wanted.not_tags_any)
    if wanted.tags_any:
        made.append(or_(*map(_has_tag, wanted.tags_any)))
    if wanted.not_tags:
        made.append(~and_(*map(_has_tag, wanted.not_tags)))
    made.extend(Server.metadata_[name].as_string() == value for name, value in wanted.metadata.items())
    return made


def _equality_condition(name: str, value: Any) -> ColumnElement[bool]:
    """`accessIPv4` is what the server was given, or else the IPv4 address that is mapped to one of its ports."""
    column = getattr(Server, name)
    if name not in PATTERN_COLUMNS:
        same: ColumnElement[bool] = column == value
        return same
    pattern = safe_regex.check_pattern(PATTERN_COLUMNS[name], value)
    matches = and_(column != "", column.regexp_match(pattern))
    if name != "access_ipv4":
        return matches
    mapped = select(Port.device_id).where(Port.ipv4_address.regexp_match(pattern))
    return or_(matches, and_(Server.access_ipv4 == "", Server.id.in_(mapped)))


def _has_tag(tag: str) -> ColumnElement[bool]:
    """Whether the list of tags has it. Written so that both databases understand it and case matters."""
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


def _after_marker(session: Session, wanted: ServerFilter, ordered: Sequence[tuple[Any, bool]]) -> ColumnElement[bool]:
    """Behind the marker in the order: keyset, so a page costs the same wherever it is."""
    query = select(*(column for column, _ in ordered)).where(Server.id == wanted.marker)
    if wanted.project_id is not None:
        query = query.where(Server.project_id == wanted.project_id)
    last = session.execute(query).one_or_none()
    if last is None:
        raise errors.BadRequest(f"marker [{wanted.marker}] not found")
    either: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for (column, descending), at in zip(ordered, last, strict=True):
        if at is None:
            same.append(column.is_(None))
            continue
        either.append(and_(*same, column < at if descending else column > at))
        same.append(column == at)
    return or_(*either)
