"""Routes of flavors, their access lists and extra specs."""

from http import HTTPStatus
from typing import Any

from flask import Response, request

from app.core import errors
from app.core.booleans import parse_boolean
from app.core.numbers import parse_integer
from app.web.bodies import json_body, parse
from app.web.context import caller, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.flavors import extra_specs, flavors
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, transaction, version
from compute_api.schemas.flavors import AddAccess, CreateFlavor, ExtraSpecs, RemoveAccess, UpdateFlavor
from compute_api.views import flavors as views

ACCESS_CHECK_SINCE, VALIDATION_SINCE = v("2.7"), v("2.86")


@compute.get("/flavors")
@require("os_compute_api:flavors:list")
def list_flavors() -> Response:
    return _list("/flavors", lambda flavor: views.brief(flavor, version()))


@compute.get("/flavors/detail")
@require("os_compute_api:flavors:list")
def list_flavors_detail() -> Response:
    return _list("/flavors/detail", lambda flavor: views.show(flavor, version()))


def _list(path: str, view: Any) -> Response:
    list_params.check_known("is_public", "minRam", "minDisk", "sort_key", "sort_dir", "limit", "marker")
    paging = page(request.args)
    with database().reading() as session:
        found = flavors.list_flavors(
            session,
            caller(),
            is_public=_parse_is_public(request.args.get("is_public", "true")) if caller().is_admin else True,
            min_ram=_parse_number("minRam"),
            min_disk=_parse_number("minDisk"),
            sort_key=request.args.get("sort_key", "flavorid"),
            descending=_is_descending(),
            limit=paging.limit,
            marker=paging.marker,
        )
    body: dict[str, Any] = {"flavors": [view(flavor) for flavor in found]}
    if found and len(found) == paging.limit and "limit" in request.args:
        href = url(f"/compute/v2.1{path}?{query_after(found[-1].id)}")
        body["flavors_links"] = [{"rel": "next", "href": href}]
    return json(body)


def _parse_is_public(text: str) -> bool | None:
    boolean = parse_boolean(text)
    if boolean is None and text.lower() != "none":
        raise errors.BadRequest(f"Invalid is_public filter [{text}]")
    return boolean


def _parse_number(name: str) -> int:
    text = request.args.get(name, "0")
    try:
        return parse_integer(text)
    except ValueError:
        raise errors.BadRequest(f"Invalid {name} filter [{text}]") from None


def _is_descending() -> bool:
    text = request.args.get("sort_dir", "asc")
    if text not in ("asc", "desc"):
        raise errors.BadRequest(f"Invalid input for query parameters sort_dir. Value: {text}. It is asc or desc.")
    return text == "desc"


@compute.post("/flavors")
@require("os_compute_api:os-flavor-manage:create")
def create_flavor() -> Response:
    body = parse(CreateFlavor, json_body(), version())
    with transaction() as session:
        flavor = flavors.create(session, body.new_flavor())
        return json({"flavor": views.show(flavor, version())})


@compute.get("/flavors/<flavor_id>")
@require("os_compute_api:flavors:list")
def show_flavor(flavor_id: str) -> Response:
    with database().reading() as session:
        return json({"flavor": views.show(flavors.find(session, caller(), flavor_id), version())})


@compute.put("/flavors/<flavor_id>")
@require("os_compute_api:os-flavor-manage:update")
def update_flavor(flavor_id: str) -> Response:
    check_available(since=views.DESCRIPTION_SINCE)
    body = parse(UpdateFlavor, json_body(), version())
    with transaction() as session:
        flavor = flavors.update(session, caller(), flavor_id, description=body.flavor.description)
        return json({"flavor": views.show(flavor, version())})


@compute.delete("/flavors/<flavor_id>")
@require("os_compute_api:os-flavor-manage:delete")
def delete_flavor(flavor_id: str) -> Response:
    with transaction() as session:
        flavors.delete(session, caller(), flavor_id)
    return empty(HTTPStatus.ACCEPTED)


@compute.get("/flavors/<flavor_id>/os-flavor-access")
@require("os_compute_api:os-flavor-access")
def list_flavor_access(flavor_id: str) -> Response:
    with database().reading() as session:
        return _render_access(flavor_id, flavors.list_access(session, caller(), flavor_id))


def _render_access(flavor_id: str, projects: list[str]) -> Response:
    return json({"flavor_access": [{"flavor_id": flavor_id, "tenant_id": project} for project in projects]})


@compute.post("/flavors/<flavor_id>/action")
@require("os_compute_api:os-flavor-access")
def flavor_action(flavor_id: str) -> Response:
    body = json_body()
    with transaction() as session:
        if isinstance(body, dict) and "addTenantAccess" in body:
            enforce("os_compute_api:os-flavor-access:add_tenant_access")
            project = parse(AddAccess, body).add.tenant
            if version() >= ACCESS_CHECK_SINCE and flavors.find(session, caller(), flavor_id).is_public:
                raise errors.Conflict("Can not add access to a public flavor.")
            flavors.grant_access(session, caller(), flavor_id, project)
        else:
            enforce("os_compute_api:os-flavor-access:remove_tenant_access")
            project = parse(RemoveAccess, body).remove.tenant
            if version() >= ACCESS_CHECK_SINCE and flavors.find(session, caller(), flavor_id).is_public:
                raise errors.Conflict("Can not remove access to a public flavor.")
            flavors.revoke_access(session, caller(), flavor_id, project)
        session.flush()
        return _render_access(flavor_id, flavors.list_access(session, caller(), flavor_id))


@compute.get("/flavors/<flavor_id>/os-extra_specs")
@require("os_compute_api:os-flavor-extra-specs:index")
def list_extra_specs(flavor_id: str) -> Response:
    with database().reading() as session:
        return json({"extra_specs": flavors.find(session, caller(), flavor_id).extra_specs})


@compute.post("/flavors/<flavor_id>/os-extra_specs")
@require("os_compute_api:os-flavor-extra-specs:create")
def create_extra_specs(flavor_id: str) -> Response:
    specs = {key: str(value) for key, value in parse(ExtraSpecs, json_body()).extra_specs.items()}
    with transaction() as session:
        if version() >= VALIDATION_SINCE:
            extra_specs.validate(specs)
        flavors.set_extra_specs(session, caller(), flavor_id, specs)
    return json({"extra_specs": specs})


@compute.get("/flavors/<flavor_id>/os-extra_specs/<key>")
@require("os_compute_api:os-flavor-extra-specs:show")
def show_extra_spec(flavor_id: str, key: str) -> Response:
    with database().reading() as session:
        specs = flavors.find(session, caller(), flavor_id).extra_specs
    if key not in specs:
        raise errors.NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
    return json({key: specs[key]})


@compute.put("/flavors/<flavor_id>/os-extra_specs/<key>")
@require("os_compute_api:os-flavor-extra-specs:update")
def update_extra_spec(flavor_id: str, key: str) -> Response:
    body = json_body()
    if not isinstance(body, dict) or list(body) != [key] or not isinstance(body[key], str | int | float):
        raise errors.BadRequest("Request body and URI mismatch")
    if version() >= VALIDATION_SINCE:
        extra_specs.validate({key: str(body[key])})
    with transaction() as session:
        flavors.set_extra_specs(session, caller(), flavor_id, {key: str(body[key])})
    return json({key: str(body[key])})


@compute.delete("/flavors/<flavor_id>/os-extra_specs/<key>")
@require("os_compute_api:os-flavor-extra-specs:delete")
def delete_extra_spec(flavor_id: str, key: str) -> Response:
    with transaction() as session:
        flavors.delete_extra_spec(session, caller(), flavor_id, key)
    return empty(HTTPStatus.OK)
