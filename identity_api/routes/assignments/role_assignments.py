"""Route of role assignments."""

from flask import Blueprint, Response, request

from app.web.context import caller, database
from app.web.policy import is_allowed
from app.web.responses import json
from identity_api.directory import assignment_queries
from identity_api.directory.assignment_queries import Filters
from identity_api.listing import parse_flag
from identity_api.routes.base import targets
from identity_api.routes.base.policy import enforce, guard
from identity_api.views import roles as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_role_assignments", __name__)


@blueprint.get("/role_assignments")
@guard("identity:list_role_assignments", targets.token_domain_assignments)
def list_all() -> Response:
    query = request.args
    subtree = _flag("include_subtree")
    if subtree:
        enforce("identity:list_role_assignments_for_tree", targets.token_domain_assignments)
    filters = Filters(
        role_id=query.get("role.id"),
        user_id=query.get("user.id"),
        group_id=query.get("group.id"),
        project_id=query.get("scope.project.id"),
        domain_id=query.get("scope.domain.id"),
        system="scope.system" in query,
        inherited="scope.OS-INHERIT:inherited_to" in query,
        subtree=subtree,
        owner_domain_id=None if is_allowed("identity:list_role_assignments", {}) else caller().domain_id,
    )
    with database().reading() as session:
        rows = assignment_queries.list_assignments(session, filters, is_effective=_flag("effective"))
        names = assignment_queries.load_names(session, rows) if _flag("include_names") else None
    return json(collection("role_assignments", [views.assignment(row, names) for row in rows]))


def _flag(name: str) -> bool:
    return name in request.args and parse_flag(request.args[name])
