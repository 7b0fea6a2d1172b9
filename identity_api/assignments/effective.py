"""Effective roles of a user: direct, by group membership, inherited, and implied."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from identity_api.models import Assignment, Implication, Membership, Project, Role


@dataclass(frozen=True, slots=True)
class RoleName:
    """A role as shown in tokens; `domain_id` is empty for a global role."""

    id: str
    name: str
    domain_id: str


@dataclass(frozen=True, slots=True)
class RoleGraph:
    """All roles and the roles they imply."""

    roles: dict[str, RoleName]
    implied: dict[str, frozenset[str]] = field(default_factory=dict)

    def closure(self, role_ids: Iterable[str]) -> set[str]:
        """Return the roles and all roles that they imply, transitively."""
        reached: set[str] = set()
        pending = list(role_ids)
        while pending:
            role_id = pending.pop()
            if role_id not in reached:
                reached.add(role_id)
                pending.extend(self.implied.get(role_id, ()))
        return reached

    def global_roles(self, role_ids: Iterable[str]) -> tuple[RoleName, ...]:
        """Return the global roles, sorted by name. Domain-specific roles are omitted: they only imply others."""
        roles = (self.roles[role_id] for role_id in role_ids if role_id in self.roles)
        return tuple(sorted((role for role in roles if not role.domain_id), key=lambda role: role.name))


def load_role_graph(session: Session) -> RoleGraph:
    """Load all roles and implications."""
    roles = {
        id_: RoleName(id_, name, domain_id)
        for id_, name, domain_id in session.execute(select(Role.id, Role.name, Role.domain_id))
    }
    implied: dict[str, set[str]] = {}
    for prior, below in session.execute(select(Implication.prior_id, Implication.implied_id)):
        implied.setdefault(prior, set()).add(below)
    return RoleGraph(roles, {prior: frozenset(below) for prior, below in implied.items()})


def find_ancestors(session: Session, parent_id: str | None) -> list[str]:
    """Return the ids of this project and its ancestors, including the domain."""
    ancestor_ids: list[str] = []
    while parent_id is not None and parent_id not in ancestor_ids:
        ancestor_ids.append(parent_id)
        parent_id = session.scalar(select(Project.parent_id).where(Project.id == parent_id))
    return ancestor_ids


def find_project_roles(
    session: Session, user_id: str, project_id: str, domain_id: str, parent_id: str | None
) -> set[str]:
    """Return the user's role ids on a project, without implied roles."""
    ancestor_ids = [domain_id] if parent_id in (None, domain_id) else find_ancestors(session, parent_id)
    query = _select_roles(user_id).where(
        or_(
            and_(Assignment.target_kind == "project", Assignment.target_id == project_id, ~Assignment.inherited),
            and_(
                Assignment.target_kind.in_(("project", "domain")),
                Assignment.target_id.in_(ancestor_ids),
                Assignment.inherited,
            ),
        )
    )
    return set(session.scalars(query))


def find_domain_roles(session: Session, user_id: str, domain_id: str) -> set[str]:
    """Return the user's role ids on a domain, without implied roles."""
    query = _select_roles(user_id).where(
        Assignment.target_kind == "domain", Assignment.target_id == domain_id, ~Assignment.inherited
    )
    return set(session.scalars(query))


def find_system_roles(session: Session, user_id: str) -> set[str]:
    """Return the user's role ids on the system, without implied roles."""
    return set(session.scalars(_select_roles(user_id).where(Assignment.target_kind == "system")))


def list_projects(session: Session, user_id: str) -> list[Project]:
    """Return the enabled projects on which the user has a role, sorted by name."""
    direct, inherited = _find_targets(session, user_id, "project")
    domain_wide = _find_targets(session, user_id, "domain")[1]
    project_ids = direct | set(_iter_descendants(session, inherited | domain_wide))
    query = (
        select(Project).where(Project.id.in_(project_ids), ~Project.is_domain, Project.enabled).order_by(Project.name)
    )
    disabled = set(session.scalars(select(Project.id).where(Project.is_domain, ~Project.enabled)))
    return [project for project in session.scalars(query) if project.domain_id not in disabled]


def list_domains(session: Session, user_id: str) -> list[Project]:
    """Return the enabled domains on which the user has a role, sorted by name."""
    direct, _ = _find_targets(session, user_id, "domain")
    query = select(Project).where(Project.id.in_(direct), Project.is_domain, Project.enabled).order_by(Project.name)
    return list(session.scalars(query))


def _select_roles(user_id: str) -> Select[str]:
    return select(Assignment.role_id).where(_assigned_to(user_id))


def _assigned_to(user_id: str) -> ColumnElement[bool]:
    groups = select(Membership.group_id).where(Membership.user_id == user_id)
    return or_(
        and_(Assignment.actor_kind == "user", Assignment.actor_id == user_id),
        and_(Assignment.actor_kind == "group", Assignment.actor_id.in_(groups)),
    )


def _find_targets(session: Session, user_id: str, kind: str) -> tuple[set[str], set[str]]:
    """Return the target ids of direct and of inherited assignments."""
    query = select(Assignment.target_id, Assignment.inherited).where(
        _assigned_to(user_id), Assignment.target_kind == kind
    )
    rows = list(session.execute(query))
    return {id_ for id_, inherited in rows if not inherited}, {id_ for id_, inherited in rows if inherited}


def _iter_descendants(session: Session, ids: set[str]) -> Iterator[str]:
    """Yield the ids of all projects below these projects and domains."""
    seen = set(ids)
    parents = set(ids)
    while parents:
        children = set(session.scalars(select(Project.id).where(Project.parent_id.in_(parents)))) - seen
        seen |= children
        yield from children
        parents = children
