"""Target attributes for policy checks, loaded by path variables or from the request body."""

from collections.abc import Mapping
from typing import Any

from flask import request

from app.web.context import caller
from identity_api.directory.bootstrap import DEFAULT_DOMAIN
from identity_api.routes.base.bodies import json_member
from identity_api.routes.base.dependencies import identity

Path = Mapping[str, str]
Attributes = Mapping[str, Any]


def user(path: Path) -> Attributes:
    return identity().cached_target("user", path["user_id"])


def group(path: Path) -> Attributes:
    return identity().cached_target("group", path["group_id"])


def membership(path: Path) -> Attributes:
    return {**group(path), **user(path)}


def project(path: Path) -> Attributes:
    return identity().cached_target("project", path["project_id"])


def domain(path: Path) -> Attributes:
    return {"target.domain.id": path["domain_id"]}


def role(path: Path) -> Attributes:
    return identity().cached_target("role", path["role_id"])


def grant(path: Path) -> Attributes:
    """Actor, target and role of a grant, as far as the path contains them."""
    attributes: dict[str, Any] = {}
    for name, load in (("user_id", user), ("group_id", group), ("project_id", project), ("domain_id", domain)):
        if name in path:
            attributes.update(load(path))
    if "role_id" in path:
        attributes.update(role(path))
    return attributes


def limit(path: Path) -> Attributes:
    return identity().target("limit", path["limit_id"])


def credential(path: Path) -> Attributes:
    return identity().target("credential", path["credential_id"])


def path_credential(path: Path) -> Attributes:
    return {"target.credential.user_id": path["user_id"]}


def own_credential(path: Path) -> Attributes:  # noqa: ARG001
    """Allow users to list their own credentials."""
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
    """Domain of a list: the requested one, or the domain of the token."""
    domain_id = requested_domain_id()
    return {"target.domain_id": domain_id} if domain_id else {}


def token_domain(path: Path) -> Attributes:  # noqa: ARG001
    own = caller().domain_id
    return {"target.domain.id": own} if own else {}


def token_domain_assignments(path: Path) -> Attributes:  # noqa: ARG001
    """Domain of the token, for lists of role assignments."""
    own = caller().domain_id
    return {"target.domain_id": own} if own else {}


def requested_domain_id() -> str | None:
    """Return `domain_id` of the query, or the domain of the token."""
    return request.args.get("domain_id") or caller().domain_id


def list_arguments() -> Mapping[str, str]:
    """Return the query parameters of a list, restricted to `requested_domain_id`."""
    domain_id = requested_domain_id()
    return {**request.args} if domain_id is None else {**request.args, "domain_id": domain_id}


def new_domain_id(kind: str) -> str:
    """Return the domain of a new object: from the body, the token, or the default domain."""
    return _body_string(kind, "domain_id") or caller().domain_id or DEFAULT_DOMAIN


def new_project_parent() -> tuple[str, str | None]:
    """Return (domain id, parent id) of a new project, for the policy check and its creation; null counts as absent.

    The domain defaults to the parent's. `projects.create` rejects a parent in another domain, so the checked domain is
    the domain of the created project.
    """
    domain_id, parent_id = _body_string("project", "domain_id"), _body_string("project", "parent_id")
    if domain_id is None and parent_id is not None:
        parent = identity().target("project", parent_id)
        domain_id = parent.get("target.project.domain_id") or parent.get("target.project.id")
    return domain_id or new_domain_id("project"), parent_id


def _body_string(kind: str, name: str) -> str | None:
    """Return a field of the object in the body; None unless it is a non-empty string."""
    value = json_member(kind).get(name)
    return value if isinstance(value, str) and value else None
