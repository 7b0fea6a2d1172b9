"""For whom something is created, and whether the caller may touch it."""

from app.core.errors import Forbidden
from app.web.context import caller
from app.web.policy import enforce


def owner_of_new_resource(owner: str | None) -> str:
    """The project that the new thing is to belong to; only an admin may create for another one."""
    project_id = owner or caller().require_project()
    if project_id != caller().project and not caller().is_admin:
        raise Forbidden("Only an operator may create something for another project.")
    return project_id


def enforce_on(rule: str, project_id: str) -> None:
    """Raise Forbidden unless the caller passes the rule for a thing of that project."""
    enforce(rule, {"project_id": project_id})
