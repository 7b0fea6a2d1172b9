"""Routes of projects and their tags."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.web.context import caller, clock, database
from app.web.links import url
from app.web.responses import empty, json
from identity_api.assignments import effective
from identity_api.directory import projects, users
from identity_api.listing import parse_flag
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import json_object, parse_body, parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.projects import NewProject, ProjectChange, Tags
from identity_api.views import projects as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_projects", __name__)


@blueprint.get("/projects")
@guard("identity:list_projects", targets.requested_domain)
def list_all() -> Response:
    is_domain = parse_flag(request.args.get("is_domain", "false"))
    with database().reading() as session:
        page = projects.list_projects(session, targets.list_arguments(), is_domain=is_domain)
        return json(collection("projects", [views.project(project) for project in page.rows], page.next_marker))


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
    query = request.args
    with database().reading() as session:
        project = projects.find(session, project_id)
        rendered = views.project(project)
        if "parents_as_list" in query or "subtree_as_list" in query:
            own = {each.id for each in effective.list_projects(session, caller().user_id)}
            if "parents_as_list" in query:
                ancestors = projects.list_ancestors(session, project)
                rendered["parents"] = [views.wrapped_project(each) for each in ancestors if each.id in own]
            if "subtree_as_list" in query:
                descendants = projects.list_descendants(session, project_id)
                rendered["subtree"] = [views.wrapped_project(each) for each in descendants if each.id in own]
        if "parents_as_ids" in query:
            rendered["parents"] = projects.nest_ancestors(session, project)
        if "subtree_as_ids" in query:
            rendered["subtree"] = projects.nest_descendants(session, project)
    return json({"project": rendered})


@blueprint.patch("/projects/<project_id>")
@guard("identity:update_project", targets.project)
def update(project_id: str) -> Response:
    body = parse_member(ProjectChange, "project")
    with database().transaction() as session:
        project = projects.find(session, project_id)
        projects.check_unmovable(project, body.provided("domain_id", "parent_id", "is_domain"))
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
        user_projects = effective.list_projects(session, user_id)
        return json(collection("projects", [views.project(project) for project in user_projects]))


@blueprint.get("/projects/<project_id>/tags")
@guard("identity:list_project_tags", targets.project)
def tags(project_id: str) -> Response:
    with database().reading() as session:
        return json(views.tags(projects.find(session, project_id)))


@blueprint.put("/projects/<project_id>/tags")
@guard("identity:update_project_tags", targets.project)
def replace_tags(project_id: str) -> Response:
    body = parse_body(Tags, json_object())
    with database().transaction() as session:
        project = projects.find(session, project_id)
        projects.change(session, project, {"tags": body.tags}, {})
    return json(views.tags(project))


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
        projects.check_tag(projects.find(session, project_id), value)
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
        projects.check_tag(project, value)
        projects.change(session, project, {"tags": [tag for tag in project.tags if tag != value]}, {})
    return empty()
