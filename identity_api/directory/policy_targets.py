"""Target attributes of stored objects for policy checks."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from identity_api.models import Credential, Group, Limit, Project, Role, User

Attributes = Mapping[str, Any]


def load(session: Session, kind: str, id_: str) -> Attributes | None:
    """Return the target attributes of an object; None if it does not exist. Kinds: the keys of `LOADERS`."""
    return LOADERS[kind](session, id_)


def _user(session: Session, user_id: str) -> Attributes | None:
    user = session.get(User, user_id)
    return {"target.user.id": user.id, "target.user.domain_id": user.domain_id} if user is not None else None


def _group(session: Session, group_id: str) -> Attributes | None:
    group = session.get(Group, group_id)
    return {"target.group.id": group.id, "target.group.domain_id": group.domain_id} if group is not None else None


def _project(session: Session, project_id: str) -> Attributes | None:
    project = session.get(Project, project_id)
    if project is None:
        return None
    owner = {"target.project.domain_id": project.domain_id} if project.domain_id else {}
    return {"target.project.id": project.id, **owner}


def _role(session: Session, role_id: str) -> Attributes | None:
    role = session.get(Role, role_id)
    return (
        {"target.role.name": role.name, "target.role.domain_id": role.domain_id or None} if role is not None else None
    )


def _limit(session: Session, limit_id: str) -> Attributes | None:
    limit = session.get(Limit, limit_id)
    if limit is None:
        return None
    attributes = {"target.limit.project_id": limit.project_id, "target.limit.domain_id": limit.domain_id}
    return {key: value for key, value in attributes.items() if value}


def _credential(session: Session, credential_id: str) -> Attributes | None:
    credential = session.get(Credential, credential_id)
    return {"target.credential.user_id": credential.user_id} if credential is not None else None


LOADERS: dict[str, Callable[[Session, str], Attributes | None]] = {
    "user": _user,
    "group": _group,
    "project": _project,
    "role": _role,
    "limit": _limit,
    "credential": _credential,
}
