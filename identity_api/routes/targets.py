"""The objects that rules speak of, found by the variables of a path or in a body."""

from collections.abc import Mapping
from typing import Any

from flask import request
from sqlalchemy.orm import Session

from app.web.context import caller
from identity_api.bootstrap import DEFAULT_DOMAIN
from identity_api.models import Credential, Group, Limit, Project, Role, User
from identity_api.routes.bodies import raw

Path = Mapping[str, str]
Found = dict[str, Any]


def user(session: Session, path: Path) -> Found:
    found = session.get(User, path["user_id"])
    return {"target.user.id": found.id, "target.user.domain_id": found.domain_id} if found else {}


def group(session: Session, path: Path) -> Found:
    found = session.get(Group, path["group_id"])
    return {"target.group.id": found.id, "target.group.domain_id": found.domain_id} if found else {}


def membership(session: Session, path: Path) -> Found:
    return {**group(session, path), **user(session, path)}


def project(session: Session, path: Path) -> Found:
    found = session.get(Project, path["project_id"])
    if found is None:
        return {}
    owner = {"target.project.domain_id": found.domain_id} if found.domain_id else {}
    return {"target.project.id": found.id, **owner}


def domain(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.domain.id": path["domain_id"]}


def role(session: Session, path: Path) -> Found:
    found = session.get(Role, path["role_id"])
    return {"target.role.name": found.name, "target.role.domain_id": found.domain_id or None} if found else {}


def grant(session: Session, path: Path) -> Found:
    """Actor, target and role of an assignment, as far as the path names them."""
    found: Found = {}
    for name, look in (("user_id", user), ("group_id", group), ("project_id", project), ("domain_id", domain)):
        if name in path:
            found |= look(session, path)
    return found | (role(session, path) if "role_id" in path else {})


def limit(session: Session, path: Path) -> Found:
    found = session.get(Limit, path["limit_id"])
    if found is None:
        return {}
    keys = {"target.limit.project_id": found.project_id, "target.limit.domain_id": found.domain_id}
    return {key: value for key, value in keys.items() if value}


def credential(session: Session, path: Path) -> Found:
    found = session.get(Credential, path["credential_id"])
    return {"target.credential.user_id": found.user_id} if found else {}


def credential_of_path(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.credential.user_id": path["user_id"]}


def own_credential(session: Session, path: Path) -> Found:  # noqa: ARG001
    """Everybody may list credentials: their own."""
    return {"target.credential.user_id": caller().user_id}


def new_credential(session: Session, path: Path) -> Found:  # noqa: ARG001
    owner = raw("credential").get("user_id", caller().user_id)
    return {"target.credential.user_id": owner} if isinstance(owner, str) else {}


def user_of_path(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.user.id": path["user_id"]}


def new_user(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.user.domain_id": new_domain_id("user")}


def new_group(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.group.domain_id": new_domain_id("group")}


def new_project(session: Session, path: Path) -> Found:  # noqa: ARG001
    if raw("project").get("is_domain"):
        return {}
    parent_id = raw("project").get("parent_id")
    parent = session.get(Project, parent_id) if isinstance(parent_id, str) else None
    if parent is not None and "domain_id" not in raw("project"):
        return {"target.project.domain_id": parent.domain_id or parent.id}
    return {"target.project.domain_id": new_domain_id("project")}


def new_role(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.role.domain_id": raw("role").get("domain_id")}


def listed_roles(session: Session, path: Path) -> Found:  # noqa: ARG001
    return {"target.role.domain_id": request.args.get("domain_id")}


def listed_domain(session: Session, path: Path) -> Found:  # noqa: ARG001
    """The domain that a list is about: the one asked for, or the caller's own."""
    wanted = listed_domain_id()
    return {"target.domain_id": wanted} if wanted else {}


def listed_domains(session: Session, path: Path) -> Found:  # noqa: ARG001
    own = caller().domain_id
    return {"target.domain.id": own} if own else {}


def listed_domains_assignments(session: Session, path: Path) -> Found:  # noqa: ARG001
    """Role assignments are listed for the domain of the caller's token."""
    own = caller().domain_id
    return {"target.domain_id": own} if own else {}


def listed_domain_id() -> str | None:
    """`domain_id` of the query, or the domain that the caller's token is for."""
    return request.args.get("domain_id") or caller().domain_id


def new_domain_id(kind: str) -> str:
    """The domain of a new object: the one in the body, the one of the caller's token, or the default domain."""
    given = raw(kind).get("domain_id")
    return given if isinstance(given, str) and given else caller().domain_id or DEFAULT_DOMAIN
