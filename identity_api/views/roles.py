"""Response bodies of roles, implied roles and role assignments."""

from typing import Any

from app.web.links import url
from identity_api.directory.assignment_queries import SYSTEM, AssignmentRow, Names
from identity_api.models import Role
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]
V3 = "/identity/v3"


def role(row: Role) -> JsonObject:
    return with_self_link(
        "roles",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "name": row.name,
            "domain_id": row.domain_id or None,
            "description": row.description,
            "options": row.options,
        },
    )


def role_reference(row: Role) -> JsonObject:
    """Render a role as id, name and link."""
    return with_self_link("roles", row.id, {"id": row.id, "name": row.name})


def inference(prior: Role, implied: Role) -> JsonObject:
    return {
        "role_inference": {"prior_role": role_reference(prior), "implies": role_reference(implied)},
        "links": {"self": url(f"{V3}/roles/{prior.id}/implies/{implied.id}")},
    }


def inferences(prior: Role, implied: list[Role]) -> JsonObject:
    return {"prior_role": role_reference(prior), "implies": [role_reference(role) for role in implied]}


def assignment(row: AssignmentRow, names: Names | None) -> JsonObject:
    """Render a role assignment, with names if given."""
    links = {"assignment": url(V3 + _origin_path(row))}
    if row.from_group_id is not None:
        links["membership"] = url(f"{V3}/groups/{row.from_group_id}/users/{row.actor_id}")
    if row.prior_role_id is not None:
        links["prior_role"] = url(f"{V3}/roles/{row.prior_role_id}")
    return {
        "role": _role(row, names),
        row.actor_kind: _actor(row, names),
        "scope": _scope(row, names),
        "links": links,
    }


def _origin_path(row: AssignmentRow) -> str:
    """Path of the assignment that this row originates from."""
    role_id = row.prior_role_id or row.role_id
    kind, id_ = ("group", row.from_group_id) if row.from_group_id else (row.actor_kind, row.actor_id)
    if row.target_kind == SYSTEM:
        return f"/system/{kind}s/{id_}/roles/{role_id}"
    if row.from_target is not None or row.inherited:
        target_kind, target_id = row.from_target or (row.target_kind, row.target_id)
        return f"/OS-INHERIT/{target_kind}s/{target_id}/{kind}s/{id_}/roles/{role_id}/inherited_to_projects"
    return f"/{row.target_kind}s/{row.target_id}/{kind}s/{id_}/roles/{role_id}"


def _role(row: AssignmentRow, names: Names | None) -> JsonObject:
    rendered: JsonObject = {"id": row.role_id}
    if names and row.role_id in names.roles:
        name, domain_id = names.roles[row.role_id]
        rendered["name"] = name
        if domain_id:
            rendered["domain"] = _domain(domain_id, names)
    return rendered


def _actor(row: AssignmentRow, names: Names | None) -> JsonObject:
    if not names:
        return {"id": row.actor_id}
    known = names.users if row.actor_kind == "user" else names.groups
    name, domain_id = known.get(row.actor_id, ("", ""))
    return {"id": row.actor_id, "name": name, "domain": _domain(domain_id, names)}


def _scope(row: AssignmentRow, names: Names | None) -> JsonObject:
    if row.target_kind == SYSTEM:
        return {"system": {"all": True}}
    target: JsonObject = {"id": row.target_id}
    if names:
        name, domain_id = names.projects.get(row.target_id, ("", None))
        target["name"] = name
        if row.target_kind == "project" and domain_id:
            target["domain"] = _domain(domain_id, names)
    scope: JsonObject = {row.target_kind: target}
    if row.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    return scope


def _domain(domain_id: str, names: Names) -> JsonObject:
    return {"id": domain_id, "name": names.projects.get(domain_id, ("", None))[0]}
