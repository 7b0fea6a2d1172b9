"""Projects and domains: the tree of resource owners."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.assignments import grants
from identity_api.conflicts import check_mutable, check_name_is_free, conflict_on_duplicate, merge_options
from identity_api.listing import Page, list_page
from identity_api.models import Credential, Group, Limit, Project, Role, User

MAX_DEPTH = 5
MAX_TAGS = 80


def find(session: Session, project_id: str) -> Project:
    """Return the project, or the domain in its role as a project."""
    project = session.get(Project, project_id)
    if project is None:
        raise errors.NotFound(f"Could not find project: {project_id}.")
    return project


def find_domain(session: Session, domain_id: str) -> Project:
    domain = session.get(Project, domain_id)
    if domain is None or not domain.is_domain:
        raise errors.NotFound(f"Could not find domain: {domain_id}.")
    return domain


def list_projects(session: Session, arguments: Mapping[str, str], *, is_domain: bool) -> Page[Project]:
    """List projects or domains by name; filters: name, domain_id, parent_id, enabled, and tags."""
    page = list_page(
        session,
        select(Project).where(Project.is_domain == is_domain),
        arguments,
        sort_key=Project.name,
        id_column=Project.id,
        filters={"name": Project.name, "domain_id": Project.domain_id, "parent_id": Project.parent_id},
        boolean_filters={"enabled": Project.enabled},
    )
    return replace(page, rows=[project for project in page.rows if _tags_match(project.tags, arguments)])


def list_domains(session: Session, arguments: Mapping[str, str], domain_id: str | None = None) -> Page[Project]:
    """List all domains by name, or only one; filters: name, id, enabled."""
    query = select(Project).where(Project.is_domain)
    return list_page(
        session,
        query if domain_id is None else query.where(Project.id == domain_id),
        arguments,
        sort_key=Project.name,
        id_column=Project.id,
        filters={"name": Project.name, "id": Project.id},
        boolean_filters={"enabled": Project.enabled},
    )


def create(
    session: Session,
    now: datetime,
    *,
    name: str,
    domain_id: str | None,
    parent_id: str | None = None,
    is_domain: bool = False,
    **columns: Any,
) -> Project:
    """Create a project below its parent, or a domain. Raises Conflict, NotFound, BadRequest, Forbidden."""
    if is_domain:
        if parent_id is not None:
            raise errors.BadRequest("A domain cannot have a parent.")
        domain_id = None
    else:
        assert domain_id is not None
        domain_id, parent_id = _resolve_parent(session, domain_id, parent_id)
    check_tags(columns.get("tags") or [])
    project = Project(
        id=uuid4().hex,
        name=name,
        domain_id=domain_id,
        parent_id=parent_id,
        is_domain=is_domain,
        created_at=now,
        **columns,
    )
    check_name_is_free(session, "project", project, name)
    with conflict_on_duplicate(session, "project", name):
        session.add(project)
    epoch.bump(session)
    return project


def change(session: Session, project: Project, changes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Update fields; `extra` fields are merged. Raises Forbidden for an immutable project."""
    options = changes.get("options")
    only_unlocks = not extra and set(changes) == {"options"} and set(options or {}) <= {"immutable"}
    if not only_unlocks:
        check_mutable("domain" if project.is_domain else "project", project.id, project.options)
    if "tags" in changes:
        check_tags(changes["tags"])
    if changes.get("enabled") is True and not project.enabled:
        _check_parents_enabled(session, project)
    if changes.get("enabled") is False and project.enabled and not project.is_domain:
        _check_descendants_disabled(session, project)
    if "name" in changes:
        check_name_is_free(session, "project", project, changes["name"])
    with conflict_on_duplicate(session, "project", changes.get("name", project.name)):
        for name, value in changes.items():
            setattr(project, name, merge_options(project.options, value) if name == "options" else value)
        if extra:
            project.extra = {**project.extra, **extra}
    epoch.bump(session)


def remove(session: Session, project: Project) -> None:
    """Delete a leaf project and the role assignments on it. Raises Forbidden."""
    if project.is_domain:
        remove_domain(session, project)
        return
    check_mutable("project", project.id, project.options, deleting=True)
    if session.scalar(select(Project.id).where(Project.parent_id == project.id).limit(1)):
        raise errors.Forbidden(
            f"Cannot delete the project {project.id} since it is not a leaf in the hierarchy. Use the cascade option "
            "if you want to delete a whole subtree."
        )
    _remove_projects(session, [project.id])
    epoch.bump(session)


def remove_domain(session: Session, domain: Project) -> None:
    """Delete a disabled domain and its content. Raises Forbidden if it is enabled."""
    if domain.enabled:
        raise errors.Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    check_mutable("domain", domain.id, domain.options, deleting=True)
    grants.remove_actor_assignments(session, "user", select(User.id).where(User.domain_id == domain.id))
    grants.remove_actor_assignments(session, "group", select(Group.id).where(Group.domain_id == domain.id))
    grants.remove_target_assignments(session, "domain", [domain.id])
    session.execute(delete(User).where(User.domain_id == domain.id))
    session.execute(delete(Group).where(Group.domain_id == domain.id))
    session.execute(delete(Role).where(Role.domain_id == domain.id))
    ids = session.scalars(select(Project.id).where(Project.parent_id == domain.id)).all()
    levels: list[Sequence[str]] = []
    while ids:
        levels.append(ids)
        ids = session.scalars(select(Project.id).where(Project.parent_id.in_(ids))).all()
    for level in reversed(levels):
        _remove_projects(session, level)
    session.execute(delete(Limit).where(Limit.domain_id == domain.id))
    session.execute(delete(Project).where(Project.id == domain.id))
    epoch.bump(session)


def list_ancestors(session: Session, project: Project) -> list[Project]:
    """Return the ancestors, nearest first, without the domain."""
    ancestors: list[Project] = []
    parent_id = project.parent_id
    while parent_id is not None:
        parent = find(session, parent_id)
        if parent.is_domain:
            break
        ancestors.append(parent)
        parent_id = parent.parent_id
    return ancestors


def list_descendants(session: Session, project_id: str) -> list[Project]:
    """Return all descendants, nearest first."""
    descendants: list[Project] = []
    parent_ids: Sequence[str] = [project_id]
    while parent_ids:
        level = session.scalars(select(Project).where(Project.parent_id.in_(parent_ids)).order_by(Project.name)).all()
        descendants.extend(level)
        parent_ids = [project.id for project in level]
    return descendants


def nest_ancestors(session: Session, project: Project) -> dict[str, Any] | None:
    """Return the ids of the ancestors and the domain as nested objects, nearest outermost."""
    nested: dict[str, Any] | None = None
    ancestors = list_ancestors(session, project)
    if project.domain_id is not None:
        ancestors.append(find(session, project.domain_id))
    for ancestor in reversed(ancestors):
        nested = {ancestor.id: nested}
    return nested


def nest_descendants(session: Session, project: Project) -> dict[str, Any] | None:
    """Return the ids of the descendants as nested objects; None if there are none."""
    descendants = list_descendants(session, project.id)

    def nest(parent_id: str) -> dict[str, Any] | None:
        return {child.id: nest(child.id) for child in descendants if child.parent_id == parent_id} or None

    return nest(project.id)


def check_tag(project: Project, tag: str) -> None:
    """Raise NotFound unless the project has the tag."""
    if tag not in project.tags:
        raise errors.NotFound(f"Could not find project tag: {tag}.")


def check_unmovable(project: Project, changes: Mapping[str, Any]) -> None:
    """Raise Forbidden for a change of a field that places the project in the hierarchy."""
    for name, value in changes.items():
        if value != getattr(project, name):
            raise errors.Forbidden(f"Update of `{name}` is not allowed.")


def check_tags(tags: Sequence[str]) -> None:
    """Raise BadRequest for too many or duplicate tags."""
    if len(tags) > MAX_TAGS:
        raise errors.BadRequest(f"Invalid input for field 'tags': a project has at most {MAX_TAGS} tags.")
    if len(set(tags)) != len(tags):
        raise errors.BadRequest("Invalid input for field 'tags': tags must be unique.")


def _tags_match(tags: Sequence[str], arguments: Mapping[str, str]) -> bool:
    """Whether the tags match the query: all of `tags`, any of `tags-any`, and their negations `not-…`."""
    own = set(tags)
    matches: dict[str, Callable[[set[str]], bool]] = {
        "tags": lambda requested: requested <= own,
        "tags-any": lambda requested: bool(requested & own),
        "not-tags": lambda requested: not requested <= own,
        "not-tags-any": lambda requested: not requested & own,
    }
    return all(match(set(arguments[name].split(","))) for name, match in matches.items() if name in arguments)


def _resolve_parent(session: Session, domain_id: str, parent_id: str | None) -> tuple[str, str]:
    """Return and check the domain and parent of a new project."""
    if parent_id is None:
        domain = session.get(Project, domain_id)
        if domain is None or not domain.is_domain:
            raise errors.NotFound(f"Could not find domain: {domain_id}.")
        return domain_id, domain_id
    parent = find(session, parent_id)
    owner = parent.id if parent.is_domain else parent.domain_id
    if domain_id != owner:
        raise errors.BadRequest(
            f"Cannot create project, the parent (with ID {parent_id}) is in another domain than {domain_id}."
        )
    if not parent.enabled:
        raise errors.Forbidden(f"Cannot create project since it has disabled parents {parent_id}.")
    if not parent.is_domain and len(list_ancestors(session, parent)) + 2 > MAX_DEPTH:
        raise errors.Forbidden(f"Max hierarchy depth reached for {parent_id} branch.")
    return domain_id, parent_id


def _check_parents_enabled(session: Session, project: Project) -> None:
    disabled = [parent.id for parent in list_ancestors(session, project) if not parent.enabled]
    if disabled:
        raise errors.Forbidden(f"Cannot enable project {project.id} since it has disabled parents.")


def _check_descendants_disabled(session: Session, project: Project) -> None:
    if any(child.enabled for child in list_descendants(session, project.id)):
        raise errors.Forbidden(f"Cannot disable project {project.id} since its subtree contains enabled projects.")


def _remove_projects(session: Session, ids: Sequence[str]) -> None:
    """Delete leaf projects with their assignments, credentials and limits."""
    grants.remove_target_assignments(session, "project", ids)
    session.execute(delete(Credential).where(Credential.project_id.in_(ids)))
    session.execute(update(User).where(User.default_project_id.in_(ids)).values(default_project_id=None))
    session.execute(delete(Limit).where(or_(Limit.project_id.in_(ids), Limit.domain_id.in_(ids))))
    session.execute(delete(Project).where(Project.id.in_(ids)))
