"""Which roles somebody really has: their own and their groups', inherited ones, and what those imply."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from identity_api.models import Assignment, Implication, Membership, Project, Role


@dataclass(frozen=True, slots=True)
class RoleName:
    """A role as tokens show it; `domain_id` is empty for a role of the whole cloud."""

    id: str
    name: str
    domain_id: str


@dataclass(frozen=True, slots=True)
class RoleGraph:
    """Every role and what it implies."""

    roles: dict[str, RoleName]
    implied: dict[str, frozenset[str]] = field(default_factory=dict)

    def closure(self, role_ids: Iterable[str]) -> set[str]:
        """The roles and all that they imply, at any distance."""
        reached: set[str] = set()
        ahead = list(role_ids)
        while ahead:
            role_id = ahead.pop()
            if role_id not in reached:
                reached.add(role_id)
                ahead.extend(self.implied.get(role_id, ()))
        return reached

    def named(self, role_ids: Iterable[str]) -> tuple[RoleName, ...]:
        """The roles in the order of their names, without those of a domain: they only stand for what they imply."""
        found = (self.roles[role_id] for role_id in role_ids if role_id in self.roles)
        return tuple(sorted((role for role in found if not role.domain_id), key=lambda role: role.name))


def load_role_graph(session: Session) -> RoleGraph:
    """The roles as they are now."""
    roles = {
        id_: RoleName(id_, name, domain_id)
        for id_, name, domain_id in session.execute(select(Role.id, Role.name, Role.domain_id))
    }
    implied: dict[str, set[str]] = {}
    for prior, below in session.execute(select(Implication.prior_id, Implication.implied_id)):
        implied.setdefault(prior, set()).add(below)
    return RoleGraph(roles, {prior: frozenset(below) for prior, below in implied.items()})


def find_ancestors(session: Session, parent_id: str | None) -> list[str]:
    """The ids of this project and everything above it, up to and with the domain."""
    above: list[str] = []
    while parent_id is not None and parent_id not in above:
        above.append(parent_id)
        parent_id = session.scalar(select(Project.parent_id).where(Project.id == parent_id))
    return above


def find_project_roles(
    session: Session, user_id: str, project_id: str, domain_id: str, parent_id: str | None
) -> set[str]:
    """Role ids of the user on a project, without what they imply."""
    above = [domain_id] if parent_id in (None, domain_id) else find_ancestors(session, parent_id)
    query = _select_roles(user_id).where(
        or_(
            and_(Assignment.target_kind == "project", Assignment.target_id == project_id, ~Assignment.inherited),
            and_(
                Assignment.target_kind.in_(("project", "domain")), Assignment.target_id.in_(above), Assignment.inherited
            ),
        )
    )
    return set(session.scalars(query))


def find_domain_roles(session: Session, user_id: str, domain_id: str) -> set[str]:
    """Role ids of the user on a domain, without what they imply."""
    query = _select_roles(user_id).where(
        Assignment.target_kind == "domain", Assignment.target_id == domain_id, ~Assignment.inherited
    )
    return set(session.scalars(query))


def find_system_roles(session: Session, user_id: str) -> set[str]:
    """Role ids of the user on the system, without what they imply."""
    return set(session.scalars(_select_roles(user_id).where(Assignment.target_kind == "system")))


def list_projects(session: Session, user_id: str) -> list[Project]:
    """The enabled projects in which the user has a role, by name."""
    direct, below = _find_targets(session, user_id, "project")
    domain_wide = _find_targets(session, user_id, "domain")[1]
    wanted = direct | set(_iter_descendants(session, below | domain_wide))
    query = select(Project).where(Project.id.in_(wanted), ~Project.is_domain, Project.enabled).order_by(Project.name)
    disabled = set(session.scalars(select(Project.id).where(Project.is_domain, ~Project.enabled)))
    return [project for project in session.scalars(query) if project.domain_id not in disabled]


def list_domains(session: Session, user_id: str) -> list[Project]:
    """The enabled domains on which the user has a role, by name."""
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
    """Target ids of the user's own assignments, and of the inherited ones."""
    query = select(Assignment.target_id, Assignment.inherited).where(
        _assigned_to(user_id), Assignment.target_kind == kind
    )
    rows = list(session.execute(query))
    return {id_ for id_, inherited in rows if not inherited}, {id_ for id_, inherited in rows if inherited}


def _iter_descendants(session: Session, ids: set[str]) -> Iterator[str]:
    """Everything below these projects and domains, and not themselves."""
    seen = set(ids)
    ahead = set(ids)
    while ahead:
        below = set(session.scalars(select(Project.id).where(Project.parent_id.in_(ahead)))) - seen
        seen |= below
        yield from below
        ahead = below
