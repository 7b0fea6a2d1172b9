"""Routes of key pairs. 2.2 added types, 2.10 other users, 2.35 pages; 2.92 ended the generation of keys."""

import re
from http import HTTPStatus
from typing import Any

from flask import Response, request

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api import keypairs
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.keypairs import CreateKeyPair
from compute_api.views import keypairs as views

OTHER_USERS_SINCE, PAGES_SINCE, IMPORT_ONLY_SINCE = v("2.10"), v("2.35"), v("2.92")

_NAME_PATTERNS = {False: re.compile(r"[A-Za-z0-9_ -]+"), True: re.compile(r"[A-Za-z0-9@._ -]+")}
"""Allowed names below 2.92 and from 2.92 on."""


@compute.get("/os-keypairs")
@require("os_compute_api:os-keypairs:index")
def list_keypairs() -> Response:
    list_params.check_known("user_id", "limit", "marker")
    is_paged = version() >= PAGES_SINCE
    paging = page(request.args)
    user_id = _resolve_user("index")
    with database().reading() as session:
        found = keypairs.list_keypairs(
            session, user_id, limit=paging.limit if is_paged else 1_000_000, marker=paging.marker if is_paged else None
        )
    body: dict[str, Any] = {"keypairs": [{"keypair": views.brief(key, version())} for key in found]}
    if is_paged and found and "limit" in request.args and len(found) == paging.limit:
        href = url(f"/compute/v2.1/os-keypairs?{query_after(found[-1].name)}")
        body["keypairs_links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.post("/os-keypairs")
@require("os_compute_api:os-keypairs:create")
def create_keypair() -> Response:
    fields = parse(CreateKeyPair, json_body(), version()).keypair
    user_id = fields.user_id or caller().user_id
    enforce("os_compute_api:os-keypairs:create", {"user_id": user_id, "project_id": caller().project_id})
    if not _NAME_PATTERNS[version() >= IMPORT_ONLY_SINCE].fullmatch(fields.name):
        raise errors.BadRequest("Keypair data is invalid: Keypair name contains unsafe characters")
    private = None
    public = fields.public_key
    if public is None:
        if version() >= IMPORT_ONLY_SINCE:
            raise errors.BadRequest("Invalid input for field/attribute keypair. 'public_key' is a required property")
        if fields.type == "x509":
            private, public = keypairs.generate_certificate(user_id, clock().now())
        else:
            private, public = keypairs.generate(comment="Generated-by-Sixstack")
    with transaction() as session:
        key = keypairs.create(
            session,
            clock().now(),
            user_id=user_id,
            project_id=caller().project,
            name=fields.name,
            kind=fields.type or "ssh",
            public_key=public,
        )
    body = views.created(key, private, version())
    return json({"keypair": body}, HTTPStatus.CREATED if version() >= views.TYPE_SINCE else HTTPStatus.OK)


@compute.get("/os-keypairs/<path:name>")
@require("os_compute_api:os-keypairs:show")
def show_keypair(name: str) -> Response:
    with database().reading() as session:
        key = keypairs.find(session, _resolve_user("show"), name)
    return json({"keypair": views.show(key, version())})


@compute.delete("/os-keypairs/<path:name>")
@require("os_compute_api:os-keypairs:delete")
def delete_keypair(name: str) -> Response:
    user_id = _resolve_user("delete")
    with transaction() as session:
        keypairs.delete(session, user_id, name)
    return empty(HTTPStatus.NO_CONTENT if version() >= views.TYPE_SINCE else HTTPStatus.ACCEPTED)


def _resolve_user(rule: str) -> str:
    """Return the owner of the requested key pairs: the caller, or from 2.10 on, for admins, another user."""
    user_id = request.args.get("user_id") if version() >= OTHER_USERS_SINCE else None
    if user_id is None or user_id == caller().user_id:
        return caller().user_id
    enforce(f"os_compute_api:os-keypairs:{rule}", {"user_id": user_id, "project_id": caller().project_id})
    return user_id
