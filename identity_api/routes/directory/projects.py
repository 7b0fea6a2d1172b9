"""Routes of projects and their tags."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.responses import empty, json
from identity_api.assignments import effective
from identity_api.directory import projects, users
from identity_api.listing import list_page, parse_flag
from identity_api.models import Project
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import json_member, json_object, parse_body, parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.projects import NewProject, ProjectChange, Tags
from identity_api.views import projects as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_projects", __name__)
FIXED = ("domain_id", "parent_id", "is_domain")


@blueprint.get("/projects")
@guard("identity:list_projects", targets.requested_domain)
def list_all() -> Response:
    query = select(Project).where(Project.is_domain == parse_flag(request.args.get("is_domain", "false")))
    arguments = {**request.args}
    if (domain_id := targets.requested_domain_id()) is not None:
        arguments["domain_id"] = domain_id
    with database().reading() as session:
        page = list_page(
            session,
            query,
            arguments,
            sort_key=Project.name,
            id_column=Project.id,
            filters={"name": Project.name, "domain_id": Project.domain_id, "parent_id": Project.parent_id},
            boolean_filters={"enabled": Project.enabled},
        )
        rows = [project for project in page.rows if _tags_match(project.tags)]
        return json(collection("projects", [views.project(project) for project in rows], page.next_marker))


@blueprint.post("/projects")
@guard("identity:create_project", targets.new_project)
def create() -> Response:
    body = parse_member(NewProject, "project")
    domain_id, parent_id = targets.new_project_parent()
    with database().transaction() as session:
        project = projects.create(
            session,
            clock().now(),
            name=body.name,
            domain_id=domain_id,
            parent_id=parent_id,
            is_domain=body.is_domain,
            description=body.description or "",
            enabled=body.enabled,
            tags=body.tags,
            options=body.options,
            extra=body.extra(),
        )
    return json({"project": views.project(project)}, HTTPStatus.CREATED)


@blueprint.get("/projects/<project_id>")
@guard("identity:get_project", targets.project)
def show(project_id: str) -> Response:
    with database().reading() as session:
        project = projects.find(session, project_id)
        return json({"project": {**views.project(project), **_render_relatives(session, project)}})


@blueprint.patch("/projects/<project_id>")
@guard("identity:update_project", targets.project)
def update(project_id: str) -> Response:
    body = parse_member(ProjectChange, "project")
    with database().transaction() as session:
        project = projects.find(session, project_id)
        for name in FIXED:
            if name in json_member("project") and getattr(body, name) != getattr(project, name):
                raise errors.Forbidden(f"Update of `{name}` is not allowed.")
        changes = body.provided("name", "description", "enabled", "tags", "options")
        if "description" in changes:
            changes["description"] = changes["description"] or ""
        projects.change(session, project, changes, body.extra())
    return json({"project": views.project(project)})


@blueprint.delete("/projects/<project_id>")
@guard("identity:delete_project", targets.project)
def delete(project_id: str) -> Response:
    with database().transaction() as session:
        projects.remove(session, projects.find(session, project_id))
    return empty()


@blueprint.get("/users/<user_id>/projects")
@guard("identity:list_user_projects", targets.user)
def of_user(user_id: str) -> Response:
    with database().reading() as session:
        users.find(session, user_id)
        found = effective.list_projects(session, user_id)
        return json(collection("projects", [views.project(project) for project in found]))


@blueprint.get("/projects/<project_id>/tags")
@guard("identity:list_project_tags", targets.project)
def tags(project_id: str) -> Response:
    with database().reading() as session:
        return _render_tags(projects.find(session, project_id))


@blueprint.put("/projects/<project_id>/tags")
@guard("identity:update_project_tags", targets.project)
def replace_tags(project_id: str) -> Response:
    body = parse_body(Tags, json_object())
    with database().transaction() as session:
        project = projects.find(session, project_id)
        projects.change(session, project, {"tags": body.tags}, {})
    return _render_tags(project)


@blueprint.delete("/projects/<project_id>/tags")
@guard("identity:delete_project_tags", targets.project)
def delete_tags(project_id: str) -> Response:
    with database().transaction() as session:
        projects.change(session, projects.find(session, project_id), {"tags": []}, {})
    return empty()


@blueprint.get("/projects/<project_id>/tags/<value>")
@guard("identity:get_project_tag", targets.project)
def check_tag(project_id: str, value: str) -> Response:
    with database().reading() as session:
        _check_tag(projects.find(session, project_id), value)
    return empty()


@blueprint.put("/projects/<project_id>/tags/<value>")
@guard("identity:create_project_tag", targets.project)
def add_tag(project_id: str, value: str) -> Response:
    parse_body(Tags, {"tags": [value]})
    with database().transaction() as session:
        project = projects.find(session, project_id)
        if value not in project.tags:
            projects.change(session, project, {"tags": [*project.tags, value]}, {})
    return empty(HTTPStatus.CREATED, {"Location": url(f"/identity/v3/projects/{project_id}/tags/{value}")})


@blueprint.delete("/projects/<project_id>/tags/<value>")
@guard("identity:delete_project_tag", targets.project)
def delete_tag(project_id: str, value: str) -> Response:
    with database().transaction() as session:
        project = projects.find(session, project_id)
        _check_tag(project, value)
        projects.change(session, project, {"tags": [tag for tag in project.tags if tag != value]}, {})
    return empty()


def _render_tags(project: Project) -> Response:
    itself = url(f"/identity/v3/projects/{project.id}/tags")
    return json({"tags": project.tags, "links": {"next": None, "self": itself, "previous": None}})


def _check_tag(project: Project, tag: str) -> None:
    if tag not in project.tags:
        raise errors.NotFound(f"Could not find project tag: {tag}.")


def _tags_match(tags: list[str]) -> bool:
    """Whether the tags match the query: all of `tags`, any of `tags-any`, and their negations `not-…`."""
    own = set(tags)
    for name, fits in (
        ("tags", lambda requested: requested <= own),
        ("tags-any", lambda requested: bool(requested & own)),
        ("not-tags", lambda requested: not requested <= own),
        ("not-tags-any", lambda requested: not requested & own),
    ):
        if name in request.args and not fits(set(request.args[name].split(","))):
            return False
    return True


def _render_relatives(session: Session, project: Project) -> dict[str, Any]:
    """Render parents and subtree as requested; lists contain only projects on which the caller has a role."""
    rendered: dict[str, Any] = {}
    query = request.args
    if "parents_as_list" in query or "subtree_as_list" in query:
        own = {found.id for found in effective.list_projects(session, caller().user_id)}
        for name, family in (("parents", projects.list_ancestors), ("subtree", _subtree)):
            if f"{name}_as_list" in query:
                rendered[name] = [
                    {"project": views.project(each)} for each in family(session, project) if each.id in own
                ]
    if "parents_as_ids" in query:
        rendered["parents"] = _nested_parents(session, project)
    if "subtree_as_ids" in query:
        rendered["subtree"] = _nested_subtree(_subtree(session, project), project.id)
    return rendered


def _subtree(session: Session, project: Project) -> list[Project]:
    return projects.list_descendants(session, project.id)


def _nested_parents(session: Session, project: Project) -> dict[str, Any] | None:
    nested: dict[str, Any] | None = None
    top = [*projects.list_ancestors(session, project)]
    if project.domain_id is not None:
        top.append(projects.find(session, project.domain_id))
    for parent in reversed(top):
        nested = {parent.id: nested}
    return nested


def _nested_subtree(below: list[Project], parent_id: str) -> dict[str, Any] | None:
    children = [project for project in below if project.parent_id == parent_id]
    return {child.id: _nested_subtree(below, child.id) for child in children} or None
