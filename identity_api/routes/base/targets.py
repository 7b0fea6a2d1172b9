"""The objects that rules speak of, found by the variables of a path or in a body."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import request

from app.web.context import caller
from identity_api.directory.bootstrap import DEFAULT_DOMAIN
from identity_api.models import Credential, Group, Limit, Project, Role, User
from identity_api.routes.base.bodies import json_member
from identity_api.routes.base.dependencies import identity, read_with_session

Path = Mapping[str, str]
Attributes = Mapping[str, Any]
Row = TypeVar("Row", User, Group, Project, Role)


def _cached_target(model: type[Row], id_: str, seen: Callable[[Row], Attributes]) -> Attributes:
    """What policy asks about the object; nothing where there is none, which may change any time."""

    def read() -> Attributes:
        found = read_with_session(lambda session: session.get(model, id_))
        if found is None:
            raise LookupError
        return seen(found)

    try:
        return identity().places.get(identity().tokens.epoch, (model.__name__, id_), read)
    except LookupError:
        return {}


def user(path: Path) -> Attributes:
    return _cached_target(
        User, path["user_id"], lambda it: {"target.user.id": it.id, "target.user.domain_id": it.domain_id}
    )


def group(path: Path) -> Attributes:
    return _cached_target(
        Group, path["group_id"], lambda it: {"target.group.id": it.id, "target.group.domain_id": it.domain_id}
    )


def membership(path: Path) -> Attributes:
    return {**group(path), **user(path)}


def project(path: Path) -> Attributes:
    def seen(it: Project) -> Attributes:
        owner = {"target.project.domain_id": it.domain_id} if it.domain_id else {}
        return {"target.project.id": it.id, **owner}

    return _cached_target(Project, path["project_id"], seen)


def domain(path: Path) -> Attributes:
    return {"target.domain.id": path["domain_id"]}


def role(path: Path) -> Attributes:
    return _cached_target(
        Role, path["role_id"], lambda it: {"target.role.name": it.name, "target.role.domain_id": it.domain_id or None}
    )


def grant(path: Path) -> Attributes:
    """Actor, target and role of an assignment, as far as the path names them."""
    found: dict[str, Any] = {}
    for name, look in (("user_id", user), ("group_id", group), ("project_id", project), ("domain_id", domain)):
        if name in path:
            found.update(look(path))
    if "role_id" in path:
        found.update(role(path))
    return found


def limit(path: Path) -> Attributes:
    found = read_with_session(lambda session: session.get(Limit, path["limit_id"]))
    if found is None:
        return {}
    keys = {"target.limit.project_id": found.project_id, "target.limit.domain_id": found.domain_id}
    return {key: value for key, value in keys.items() if value}


def credential(path: Path) -> Attributes:
    found = read_with_session(lambda session: session.get(Credential, path["credential_id"]))
    return {"target.credential.user_id": found.user_id} if found else {}


def path_credential(path: Path) -> Attributes:
    return {"target.credential.user_id": path["user_id"]}


def own_credential(path: Path) -> Attributes:  # noqa: ARG001
    """Everybody may list credentials: their own."""
    return {"target.credential.user_id": caller().user_id}


def new_credential(path: Path) -> Attributes:  # noqa: ARG001
    owner = json_member("credential").get("user_id", caller().user_id)
    return {"target.credential.user_id": owner} if isinstance(owner, str) else {}


def path_user(path: Path) -> Attributes:
    return {"target.user.id": path["user_id"]}


def new_user(path: Path) -> Attributes:  # noqa: ARG001
    return {"target.user.domain_id": new_domain_id("user")}


def new_group(path: Path) -> Attributes:  # noqa: ARG001
    return {"target.group.domain_id": new_domain_id("group")}


def new_project(path: Path) -> Attributes:  # noqa: ARG001
    if json_member("project").get("is_domain"):
        return {}
    return {"target.project.domain_id": new_project_parent()[0]}


def new_role(path: Path) -> Attributes:  # noqa: ARG001
    return {"target.role.domain_id": json_member("role").get("domain_id")}


def requested_role_domain(path: Path) -> Attributes:  # noqa: ARG001
    return {"target.role.domain_id": request.args.get("domain_id")}


def requested_domain(path: Path) -> Attributes:  # noqa: ARG001
    """The domain that a list is about: the one asked for, or the caller's own."""
    wanted = requested_domain_id()
    return {"target.domain_id": wanted} if wanted else {}


def token_domain(path: Path) -> Attributes:  # noqa: ARG001
    own = caller().domain_id
    return {"target.domain.id": own} if own else {}


def token_domain_assignments(path: Path) -> Attributes:  # noqa: ARG001
    """Role assignments are listed for the domain of the caller's token."""
    own = caller().domain_id
    return {"target.domain_id": own} if own else {}


def requested_domain_id() -> str | None:
    """`domain_id` of the query, or the domain that the caller's token is for."""
    return request.args.get("domain_id") or caller().domain_id


def new_domain_id(kind: str) -> str:
    """The domain of a new object: the one in the body, the one of the caller's token, or the default domain."""
    return _body_string(kind, "domain_id") or caller().domain_id or DEFAULT_DOMAIN


def new_project_parent() -> tuple[str, str | None]:
    """(domain, parent) of the new project, for the rule and for creating it; null counts as absent.

    Without a domain it is the parent's. `projects.create` refuses a parent in another domain, so what the rule was
    asked about is what is created.
    """
    domain_id, parent_id = _body_string("project", "domain_id"), _body_string("project", "parent_id")
    if domain_id is None and parent_id is not None:
        parent = read_with_session(lambda session: session.get(Project, parent_id))
        domain_id = (parent.domain_id or parent.id) if parent is not None else None
    return domain_id or new_domain_id("project"), parent_id


def _body_string(kind: str, name: str) -> str | None:
    """A field of the object in the body; None unless it is a text with something in it."""
    value = json_member(kind).get(name)
    return value if isinstance(value, str) and value else None
