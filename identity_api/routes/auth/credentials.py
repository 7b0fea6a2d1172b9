"""Routes of stored credentials and EC2 key pairs."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.core import errors
from app.web.context import caller, clock, database
from app.web.policy import is_allowed
from app.web.responses import empty, json
from identity_api.directory import credentials
from identity_api.routes.auth.application_credentials import check_unrestricted
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import json_object, parse_body, parse_member
from identity_api.routes.base.dependencies import identity
from identity_api.routes.base.policy import guard
from identity_api.schemas.ec2_credentials import CredentialChange, NewCredential, NewEc2
from identity_api.views import ec2_credentials as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_stored_credentials", __name__)
EC2 = "/users/<user_id>/credentials/OS-EC2"


@blueprint.get("/credentials")
@guard("identity:list_credentials", targets.own_credential)
def list_all() -> Response:
    """List the credentials that the caller may show."""
    with database().reading() as session:
        page = credentials.list_credentials(session, request.args)
    rendered = [
        views.credential(row, identity().cipher)
        for row in page.rows
        if _is_reachable(row.project_id)
        and is_allowed("identity:get_credential", {"target.credential.user_id": row.user_id})
    ]
    return json(collection("credentials", rendered, page.next_marker))


@blueprint.post("/credentials")
@guard("identity:create_credential", targets.new_credential)
def create() -> Response:
    body = parse_member(NewCredential, "credential")
    _check_reachable(body.project_id, writing=True)
    with database().transaction() as session:
        credential = credentials.create(
            session,
            identity().cipher,
            clock().now(),
            user_id=body.user_id or caller().user_id,
            project_id=body.project_id,
            kind=body.type,
            blob=body.blob,
            extra=body.extra(),
        )
    return json({"credential": views.credential(credential, identity().cipher)}, HTTPStatus.CREATED)


@blueprint.get("/credentials/<credential_id>")
@guard("identity:get_credential", targets.credential)
def show(credential_id: str) -> Response:
    with database().reading() as session:
        credential = credentials.find(session, credential_id)
    _check_reachable(credential.project_id)
    return json({"credential": views.credential(credential, identity().cipher)})


@blueprint.patch("/credentials/<credential_id>")
@guard("identity:update_credential", targets.credential)
def update(credential_id: str) -> Response:
    body = parse_member(CredentialChange, "credential")
    with database().transaction() as session:
        credential = credentials.find(session, credential_id)
        _check_reachable(credential.project_id, writing=True)
        credentials.check_unchanged(credential, body.provided("type", "user_id", "project_id"))
        if body.blob is not None:
            credentials.change_blob(identity().cipher, credential, body.blob, clock().now())
        credentials.change_extra(credential, body.extra())
    return json({"credential": views.credential(credential, identity().cipher)})


@blueprint.delete("/credentials/<credential_id>")
@guard("identity:delete_credential", targets.credential)
def delete(credential_id: str) -> Response:
    with database().transaction() as session:
        credential = credentials.find(session, credential_id)
        _check_reachable(credential.project_id, writing=True)
        credentials.remove(session, credential)
    return empty()


@blueprint.get(EC2)
@guard("identity:ec2_list_credentials")
def list_ec2(user_id: str) -> Response:
    with database().reading() as session:
        rows = credentials.list_ec2(session, user_id)
    rendered = [views.ec2(row, identity().cipher) for row in rows if _is_reachable(row.project_id)]
    return json(collection("credentials", rendered))


@blueprint.post(EC2)
@guard("identity:ec2_create_credential", targets.path_credential)
def create_ec2(user_id: str) -> Response:
    body = parse_body(NewEc2, json_object())
    _check_reachable(body.tenant_id, writing=True)
    with database().transaction() as session:
        credential = credentials.create_ec2(session, identity().cipher, clock().now(), user_id, body.tenant_id)
    return json({"credential": views.ec2(credential, identity().cipher)}, HTTPStatus.CREATED)


@blueprint.get(f"{EC2}/<access>")
@guard("identity:ec2_get_credential", targets.path_credential)
def show_ec2(user_id: str, access: str) -> Response:
    with database().reading() as session:
        credential = credentials.find_ec2(session, user_id, access)
    _check_reachable(credential.project_id)
    return json({"credential": views.ec2(credential, identity().cipher)})


@blueprint.delete(f"{EC2}/<access>")
@guard("identity:ec2_delete_credential", targets.path_credential)
def delete_ec2(user_id: str, access: str) -> Response:
    with database().transaction() as session:
        credential = credentials.find_ec2(session, user_id, access)
        _check_reachable(credential.project_id, writing=True)
        credentials.remove(session, credential)
    return empty()


def _is_reachable(project_id: str | None) -> bool:
    """Whether the token may access credentials of this project: with an application credential only its own project."""
    me = caller()
    return me.application_credential_id is None or project_id == me.project_id


def _check_reachable(project_id: str | None, *, writing: bool = False) -> None:
    """Raise Forbidden for credentials that this token may not access."""
    if writing:
        check_unrestricted("additional credentials")
    if not _is_reachable(project_id):
        raise errors.Forbidden("The credential does not belong to the project of the application credential.")
