"""Owner of new resources and policy checks against an owner."""

from app.core.errors import Forbidden
from app.web.context import caller
from app.web.policy import enforce


def owner_of_new_resource(owner: str | None) -> str:
    """Return the project of a new resource. Raises Forbidden for another project unless the caller is an admin."""
    project_id = owner or caller().require_project()
    if project_id != caller().project and not caller().is_admin:
        raise Forbidden("Only an operator may create resources for another project.")
    return project_id


def enforce_on(rule: str, project_id: str) -> None:
    """Raise Forbidden unless the policy allows the caller to act on a resource of this project."""
    enforce(rule, {"project_id": project_id})
