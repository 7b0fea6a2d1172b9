"""Lists of role assignments: direct, or effective (groups, inheritance and implied roles expanded)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core import errors
from identity_api.assignments import effective
from identity_api.directory import projects
from identity_api.models import Assignment, Group, Membership, Project, Role, User

SYSTEM = "system"
Domain = TypeVar("Domain")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRow:
    """One assignment. In an effective list the last fields identify its origin."""

    role_id: str
    actor_kind: str
    actor_id: str
    target_kind: str
    target_id: str
    inherited: bool = False
    from_group_id: str | None = None
    from_target: tuple[str, str] | None = None
    """Kind and id of the target that an inherited role was assigned on."""
    prior_role_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Filters of the list; None matches everything."""

    role_id: str | None = None
    user_id: str | None = None
    group_id: str | None = None
    project_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    inherited: bool = False
    subtree: bool = False
    owner_domain_id: str | None = None
    """Restrict to targets in this domain, for callers without access to other domains."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names and domain ids, by id, of the resources in a list of assignments."""

    users: Mapping[str, tuple[str, str]]
    groups: Mapping[str, tuple[str, str]]
    projects: Mapping[str, tuple[str, str | None]]
    roles: Mapping[str, tuple[str, str]]


def list_assignments(session: Session, filters: Filters, *, is_effective: bool) -> list[AssignmentRow]:
    """List assignments. Raises BadRequest for contradictory filters."""
    targets = [filters.project_id is not None, filters.domain_id is not None, filters.system]
    if sum(targets) > 1:
        raise errors.BadRequest("Specify a domain or project or system, not more than one of them.")
    if filters.user_id is not None and filters.group_id is not None:
        raise errors.BadRequest("Specify a user or group, not both.")
    if is_effective and filters.group_id is not None:
        raise errors.BadRequest("Combining effective and group filter will always result in an empty list.")
    if is_effective and filters.inherited:
        raise errors.BadRequest("Combining effective and inherited filter will always result in an empty list.")
    rows: Iterable[AssignmentRow] = _load_rows(session)
    if is_effective:
        rows = _expand_implied(session, _expand_inherited(session, _expand_groups(session, rows)))
    project_ids = _find_project_ids(session, filters)
    owned_targets = _find_owned_targets(session, filters.owner_domain_id)
    matching = (row for row in rows if _matches(row, filters, project_ids, owned_targets))
    return list(dict.fromkeys(matching))


def load_names(session: Session, rows: Iterable[AssignmentRow]) -> Names:
    """Load the names of all resources in the rows and of their domains."""
    kinds: dict[str, set[str]] = {"user": set(), "group": set(), "project": set(), "role": set()}
    for row in rows:
        kinds[row.actor_kind].add(row.actor_id)
        kinds["role"].add(row.role_id)
        if row.target_kind != SYSTEM:
            kinds["project"].add(row.target_id)
    users = session.execute(select(User.id, User.name, User.domain_id).where(_in_ids(User.id, kinds["user"])))
    groups = session.execute(select(Group.id, Group.name, Group.domain_id).where(_in_ids(Group.id, kinds["group"])))
    roles = session.execute(select(Role.id, Role.name, Role.domain_id).where(_in_ids(Role.id, kinds["role"])))
    names = Names(_index_by_id(users), _index_by_id(groups), {}, _index_by_id(roles))
    mentioned = kinds["project"] | {domain for _, domain in (*names.users.values(), *names.groups.values())}
    mentioned |= {domain for _, domain in names.roles.values() if domain}
    query = select(Project.id, Project.name, Project.domain_id)
    projects = _index_by_id(session.execute(query.where(_in_ids(Project.id, mentioned))))
    missing = {domain for _, domain in projects.values() if domain} - set(projects)
    projects |= _index_by_id(session.execute(query.where(_in_ids(Project.id, missing))))
    return replace(names, projects=projects)


def _in_ids(column: InstrumentedAttribute[str], ids: set[str]) -> ColumnElement[bool]:
    """Match these ids; match all rows if there are too many ids for one statement."""
    return column.in_(ids) if len(ids) <= 10_000 else true()


def _index_by_id(rows: Iterable[tuple[str, str, Domain]]) -> dict[str, tuple[str, Domain]]:
    return {id_: (name, domain_id) for id_, name, domain_id in rows}


def _load_rows(session: Session) -> Iterator[AssignmentRow]:
    query = select(Assignment).order_by(Assignment.target_kind, Assignment.target_id, Assignment.actor_id)
    for assignment in session.scalars(query):
        yield AssignmentRow(
            role_id=assignment.role_id,
            actor_kind=assignment.actor_kind,
            actor_id=assignment.actor_id,
            target_kind=assignment.target_kind,
            target_id=assignment.target_id,
            inherited=assignment.inherited,
        )


def _expand_groups(session: Session, rows: Iterable[AssignmentRow]) -> Iterator[AssignmentRow]:
    """Replace group assignments by assignments of the members."""
    members: dict[str, list[str]] = {}
    for user_id, group_id in session.execute(select(Membership.user_id, Membership.group_id)):
        members.setdefault(group_id, []).append(user_id)
    for row in rows:
        if row.actor_kind == "user":
            yield row
        else:
            for user_id in members.get(row.actor_id, ()):
                yield replace(row, actor_kind="user", actor_id=user_id, from_group_id=row.actor_id)


def _expand_inherited(session: Session, rows: Iterable[AssignmentRow]) -> Iterator[AssignmentRow]:
    """Replace inherited assignments by assignments on the projects below the target."""
    descendants: dict[str, list[str]] = {}
    for row in rows:
        if not row.inherited:
            yield row
            continue
        if row.target_id not in descendants:
            descendants[row.target_id] = [project.id for project in projects.list_descendants(session, row.target_id)]
        for project_id in descendants[row.target_id]:
            yield replace(
                row,
                target_kind="project",
                target_id=project_id,
                inherited=False,
                from_target=(row.target_kind, row.target_id),
            )


def _expand_implied(session: Session, rows: Iterable[AssignmentRow]) -> Iterator[AssignmentRow]:
    """Add implied roles; omit domain-specific roles, which only imply others."""
    graph = effective.load_role_graph(session)
    for row in rows:
        for role_id in sorted(graph.closure([row.role_id])):
            if role_id == row.role_id:
                if not graph.roles[role_id].domain_id:
                    yield row
            elif not graph.roles[role_id].domain_id:
                yield replace(row, role_id=role_id, prior_role_id=row.role_id)


def _find_project_ids(session: Session, filters: Filters) -> set[str] | None:
    if filters.project_id is None:
        return None
    ids = {filters.project_id}
    if filters.subtree:
        ids |= {project.id for project in projects.list_descendants(session, filters.project_id)}
    return ids


def _find_owned_targets(session: Session, domain_id: str | None) -> set[str] | None:
    if domain_id is None:
        return None
    inside = session.scalars(select(Project.id).where(Project.domain_id == domain_id))
    return {domain_id, *inside}


def _matches(
    row: AssignmentRow, filters: Filters, project_ids: set[str] | None, owned_targets: set[str] | None
) -> bool:
    return (
        (filters.role_id is None or row.role_id == filters.role_id)
        and (filters.user_id is None or (row.actor_kind == "user" and row.actor_id == filters.user_id))
        and (filters.group_id is None or (row.actor_kind == "group" and row.actor_id == filters.group_id))
        and (project_ids is None or (row.target_kind == "project" and row.target_id in project_ids))
        and (filters.domain_id is None or (row.target_kind == "domain" and row.target_id == filters.domain_id))
        and (not filters.system or row.target_kind == SYSTEM)
        and (not filters.inherited or row.inherited)
        and (owned_targets is None or (row.target_kind != SYSTEM and row.target_id in owned_targets))
    )
