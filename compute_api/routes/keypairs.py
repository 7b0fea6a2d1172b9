"""Routes of key pairs; what they answer changed with 2.2 (codes, type), 2.10 (other users) and 2.35 (paging)."""

import re
from http import HTTPStatus
from typing import Annotated, Any, Literal

from flask import Response, request

from app.core import errors
from app.web.bodies import Body, json_body, parse, since
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api import keypairs
from compute_api.models import KeyPair
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.fields import Name
from compute_api.views.servers import format_microseconds

TYPED, OTHERS, PAGED, NOT_MADE_HERE = v("2.2"), v("2.10"), v("2.35"), v("2.92")


_NAMES = {False: re.compile(r"[A-Za-z0-9_ -]+"), True: re.compile(r"[A-Za-z0-9@._ -]+")}
"""What names may be made of, before and from 2.92 on."""


class KeyPairFields(Body):
    """The key pair of POST /os-keypairs."""

    name: Name
    public_key: str | None = None
    type: Annotated[Literal["ssh", "x509"] | None, since("2.2")] = None
    user_id: Annotated[str | None, since("2.10")] = None


class CreateKeyPair(Body):
    """POST /os-keypairs."""

    keypair: KeyPairFields


@compute.get("/os-keypairs")
@require("os_compute_api:os-keypairs:index")
def list_keypairs() -> Response:
    list_params.check_known("user_id", "limit", "marker")
    paged = version() >= PAGED
    asked = page(request.args)
    user_id = _user("index")
    with database().reading() as session:
        found = keypairs.list_keypairs(
            session, user_id, limit=asked.limit if paged else 1_000_000, marker=asked.marker if paged else None
        )
    body: dict[str, Any] = {"keypairs": [{"keypair": _brief(key)} for key in found]}
    if paged and found and "limit" in request.args and len(found) == asked.limit:
        href = url(f"/compute/v2.1/os-keypairs?{query_after(found[-1].name)}")
        body["keypairs_links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.post("/os-keypairs")
@require("os_compute_api:os-keypairs:create")
def create_keypair() -> Response:
    asked = parse(CreateKeyPair, json_body(), version()).keypair
    user_id = asked.user_id or caller().user_id
    enforce("os_compute_api:os-keypairs:create", {"user_id": user_id, "project_id": caller().project_id})
    if not _NAMES[version() >= NOT_MADE_HERE].fullmatch(asked.name):
        raise errors.BadRequest("Keypair data is invalid: Keypair name contains unsafe characters")
    private = None
    public = asked.public_key
    if public is None:
        if version() >= NOT_MADE_HERE:
            raise errors.BadRequest("Invalid input for field/attribute keypair. 'public_key' is a required property")
        if asked.type == "x509":
            private, public = keypairs.generate_certificate(user_id, clock().now())
        else:
            private, public = keypairs.generate(comment="Generated-by-Sixstack")
    with transaction() as session:
        made = keypairs.create(
            session,
            clock().now(),
            user_id=user_id,
            project_id=caller().project,
            name=asked.name,
            kind=asked.type or "ssh",
            public_key=public,
        )
    body = {**_brief(made), "user_id": user_id}
    if private is not None:
        body["private_key"] = private
    return json({"keypair": body}, HTTPStatus.CREATED if version() >= TYPED else HTTPStatus.OK)


@compute.get("/os-keypairs/<path:name>")
@require("os_compute_api:os-keypairs:show")
def show_keypair(name: str) -> Response:
    with database().reading() as session:
        key = keypairs.find(session, _user("show"), name)
    body = {
        **_brief(key),
        "user_id": key.user_id,
        "id": key.id,
        "created_at": format_microseconds(key.created_at),
        "updated_at": None,
        "deleted_at": None,
        "deleted": False,
    }
    return json({"keypair": body})


@compute.delete("/os-keypairs/<path:name>")
@require("os_compute_api:os-keypairs:delete")
def delete_keypair(name: str) -> Response:
    user_id = _user("delete")
    with transaction() as session:
        keypairs.delete(session, user_id, name)
    return empty(HTTPStatus.NO_CONTENT if version() >= TYPED else HTTPStatus.ACCEPTED)


def _user(rule: str) -> str:
    """Whose keys are meant: the caller's own, or from 2.10 on, for admins, another user's."""
    user_id = request.args.get("user_id") if version() >= OTHERS else None
    if user_id is None or user_id == caller().user_id:
        return caller().user_id
    enforce(f"os_compute_api:os-keypairs:{rule}", {"user_id": user_id, "project_id": caller().project_id})
    return user_id


def _brief(key: KeyPair) -> dict[str, Any]:
    body = {"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint}
    if version() >= TYPED:
        body["type"] = key.type
    return body
