"""Routes of users and their passwords."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.core import errors
from app.http.source_address import source_address
from app.web.authentication import public
from app.web.context import clock, database, settings
from app.web.responses import empty, json
from identity_api.auth import passwords
from identity_api.auth.methods import Reference
from identity_api.directory import users
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import parse_member
from identity_api.routes.base.dependencies import identity
from identity_api.routes.base.policy import guard
from identity_api.schemas.users import NewUser, PasswordChange, UserChange
from identity_api.tokens.context import UNAUTHORIZED
from identity_api.views import users as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_users", __name__)


@blueprint.get("/users")
@guard("identity:list_users", targets.requested_domain)
def list_all() -> Response:
    with database().reading() as session:
        page = users.list_users(session, targets.list_arguments())
        return json(collection("users", [views.user(user) for user in page.rows], page.next_marker))


@blueprint.post("/users")
@guard("identity:create_user", targets.new_user)
def create() -> Response:
    body = parse_member(NewUser, "user")
    password_hash = _hash_password(body.password)
    with database().transaction() as session:
        user = users.create(
            session,
            clock().now(),
            settings(),
            name=body.name,
            domain_id=body.domain_id or targets.new_domain_id("user"),
            password_hash=password_hash,
            default_project_id=body.default_project_id,
            enabled=body.enabled,
            options={name: value for name, value in body.options.items() if value is not None},
            extra=body.extra(),
        )
    return json({"user": views.user(user)}, HTTPStatus.CREATED)


@blueprint.get("/users/<user_id>")
@guard("identity:get_user", targets.user)
def show(user_id: str) -> Response:
    with database().reading() as session:
        return json({"user": views.user(users.find(session, user_id))})


@blueprint.patch("/users/<user_id>")
@guard("identity:update_user", targets.user)
def update(user_id: str) -> Response:
    body = parse_member(UserChange, "user")
    password_hash = _hash_password(body.password)
    with database().transaction() as session:
        user = users.find(session, user_id)
        if "domain_id" in body.model_fields_set and body.domain_id != user.domain_id:
            raise errors.BadRequest("Cannot change user's domain_id.")
        changes = body.provided("name", "enabled", "default_project_id", "options")
        users.change(session, user, clock().now(), settings(), changes, body.extra(), password_hash)
    return json({"user": views.user(user)})


@blueprint.delete("/users/<user_id>")
@guard("identity:delete_user", targets.user)
def delete(user_id: str) -> Response:
    with database().transaction() as session:
        users.remove(session, users.find(session, user_id))
    return empty()


@blueprint.post("/users/<user_id>/password")
@public
def change_password(user_id: str) -> Response:
    """Authenticated by the old password instead of a token, so that an expired password can be changed."""
    body = parse_member(PasswordChange, "user")
    if not identity().logins.check_password(Reference(id=user_id), body.original_password, source_address()).enabled:
        raise errors.Unauthorized(UNAUTHORIZED)
    with database().reading() as session:
        user = users.find(session, user_id)
    same = body.password == body.original_password
    users.check_may_change_password(user, clock().now(), settings(), same)
    password_hash = _hash_password(body.password)
    with database().transaction() as session:
        users.change(session, users.find(session, user_id), clock().now(), settings(), {}, {}, password_hash)
    return empty()


@blueprint.get("/users/<user_id>/groups")
@guard("identity:list_groups_for_user", targets.user)
def groups_of(user_id: str) -> Response:
    with database().reading() as session:
        page = users.list_groups(session, user_id, request.args)
        return json(collection("groups", [views.group(group) for group in page.rows], page.next_marker))


def _hash_password(password: str | None) -> str | None:
    """Hash a password outside of any transaction, because it is slow."""
    if password is None:
        return None
    passwords.check_strength(password, settings())
    return identity().verifier.hash(password)
