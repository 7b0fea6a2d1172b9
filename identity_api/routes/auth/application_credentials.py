"""Routes of application credentials and access rules."""

from http import HTTPStatus
from uuid import uuid4

from flask import Blueprint, Response, request

from app.core import errors
from app.web.context import caller, clock, database
from app.web.responses import empty, json
from identity_api.auth import passwords
from identity_api.directory import application_credentials
from identity_api.directory.application_credentials import AccessRuleSpec
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import parse_member
from identity_api.routes.base.dependencies import identity
from identity_api.routes.base.policy import guard
from identity_api.schemas.credentials import NewApplicationCredential
from identity_api.views import credentials as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_application_credentials", __name__)
CREDENTIALS = "/users/<user_id>/application_credentials"
RULES = "/users/<user_id>/access_rules"


@blueprint.get(CREDENTIALS)
@guard("identity:list_application_credentials")
def list_all(user_id: str) -> Response:
    with database().reading() as session:
        page = application_credentials.list_credentials(session, user_id, request.args)
        details = application_credentials.load_details(session, page.rows)
    rendered = [views.application_credential(each) for each in details]
    return json(collection("application_credentials", rendered, page.next_marker))


@blueprint.post(CREDENTIALS)
@guard("identity:create_application_credential")
def create(user_id: str) -> Response:
    me = caller()
    check_unrestricted("additional application credentials")
    if me.project_id is None:
        raise errors.BadRequest("Invalid application credential: a project-scoped token is required.")
    body = parse_member(NewApplicationCredential, "application_credential")
    id_ = uuid4().hex
    secret = body.secret or passwords.generate_secret()
    digest = identity().verifier.hash(secret) if body.secret else passwords.digest_generated_secret(secret, id_)
    rules = None
    if body.access_rules is not None:
        rules = [
            AccessRuleSpec(id=rule.id, service=rule.service or "", method=rule.method or "", path=rule.path or "")
            for rule in body.access_rules
        ]
    with database().transaction() as session:
        credential = application_credentials.create(
            session,
            clock().now(),
            id_=id_,
            user_id=user_id,
            project_id=me.project_id,
            name=body.name,
            digest=digest,
            expires_at=body.expiry(),
            unrestricted=body.unrestricted,
            roles=None if body.roles is None else [role.model_dump() for role in body.roles],
            held_roles=me.roles,
            rules=rules,
            description=body.description,
        )
        (details,) = application_credentials.load_details(session, [credential])
    return json({"application_credential": views.application_credential(details, secret)}, HTTPStatus.CREATED)


@blueprint.get(f"{CREDENTIALS}/<credential_id>")
@guard("identity:get_application_credential")
def show(user_id: str, credential_id: str) -> Response:
    with database().reading() as session:
        credential = application_credentials.find(session, user_id, credential_id)
        (details,) = application_credentials.load_details(session, [credential])
    return json({"application_credential": views.application_credential(details)})


@blueprint.delete(f"{CREDENTIALS}/<credential_id>")
@guard("identity:delete_application_credential")
def delete(user_id: str, credential_id: str) -> Response:
    check_unrestricted("additional application credentials")
    with database().transaction() as session:
        application_credentials.remove(session, application_credentials.find(session, user_id, credential_id))
    return empty()


@blueprint.get(RULES)
@guard("identity:list_access_rules", targets.path_user)
def rules(user_id: str) -> Response:
    with database().reading() as session:
        page = application_credentials.list_rules(session, user_id, request.args)
        return json(collection("access_rules", [views.access_rule(rule) for rule in page.rows], page.next_marker))


@blueprint.get(f"{RULES}/<rule_id>")
@guard("identity:get_access_rule", targets.path_user)
def rule(user_id: str, rule_id: str) -> Response:
    with database().reading() as session:
        return json({"access_rule": views.access_rule(application_credentials.find_rule(session, user_id, rule_id))})


@blueprint.delete(f"{RULES}/<rule_id>")
@guard("identity:delete_access_rule", targets.path_user)
def delete_rule(user_id: str, rule_id: str) -> Response:
    check_unrestricted("access rules")
    with database().transaction() as session:
        application_credentials.remove_rule(session, application_credentials.find_rule(session, user_id, rule_id))
    return empty()


def check_unrestricted(what: str) -> None:
    """Raise Forbidden for a token of a restricted application credential."""
    used = caller().application_credential_id
    if used is None:
        return
    with database().reading() as session:
        is_unrestricted = application_credentials.is_unrestricted(session, used)
    if not is_unrestricted:
        raise errors.Forbidden(f"Using method 'application_credential' is not allowed for managing {what}.")
