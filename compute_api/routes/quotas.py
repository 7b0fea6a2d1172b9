"""Routes of quotas: of a project, of a user in it, the defaults, and the class `default` that changes those."""

from collections.abc import Mapping
from typing import Any

from flask import Response, request
from sqlalchemy.orm import Session

from app.core import errors
from app.core.numbers import parse_integer
from app.web.bodies import json_body
from app.web.context import database
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import json
from compute_api import quotas
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.scheduler import claims, server_groups

NETWORK_PROXY_UNTIL, FILES_UNTIL, CLASS_GROUPS_SINCE = v("2.35"), v("2.56"), v("2.50")
NETWORK = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}
FILES = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
MAXIMUM = 2**31 - 1


@compute.get("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:show")
def show_quota(project_id: str) -> Response:
    list_params.check_known("user_id")
    enforce("os_compute_api:os-quota-sets:show", {"project_id": project_id})
    with database().reading() as session:
        return json({"quota_set": {"id": project_id, **_shown(_limits(session, project_id))}})


@compute.get("/os-quota-sets/<project_id>/detail")
@require("os_compute_api:os-quota-sets:detail")
def show_quota_detail(project_id: str) -> Response:
    list_params.check_known("user_id")
    enforce("os_compute_api:os-quota-sets:detail", {"project_id": project_id})
    with database().reading() as session:
        limits = _shown(_limits(session, project_id))
        used = _usage(session, project_id) | {"server_groups": server_groups.count(session, project_id)}
    detail = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    return json({"quota_set": {"id": project_id, **detail}})


@compute.get("/os-quota-sets/<project_id>/defaults")
@require("os_compute_api:os-quota-sets:defaults")
def show_quota_defaults(project_id: str) -> Response:
    with database().reading() as session:
        return json({"quota_set": {"id": project_id, **_shown(quotas.defaults(session))}})


@compute.put("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:update")
def update_quota(project_id: str) -> Response:
    list_params.check_known("user_id")
    asked = _asked("quota_set")
    force = list_params.parse_boolean(str(asked.pop("force", "false")))
    asked.pop("tenant_id", None)
    wanted = _numbers(asked, set(_shown(quotas.DEFAULTS)))
    with transaction() as session:
        if not force:
            _check_range(session, project_id, wanted)
        if (user_id := _user_id()) is None:
            quotas.set_limits(session, project_id, wanted)
        else:
            quotas.set_user_limits(session, project_id, user_id, wanted)
        session.flush()
        return json({"quota_set": _shown(_limits(session, project_id))})


@compute.delete("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:delete")
def delete_quota(project_id: str) -> Response:
    list_params.check_known("user_id")
    with transaction() as session:
        if (user_id := _user_id()) is None:
            quotas.reset(session, project_id)
        else:
            quotas.reset_user(session, project_id, user_id)
    return Response(status=202)


@compute.get("/os-quota-class-sets/<name>")
@require("os_compute_api:os-quota-class-sets:show")
def show_quota_class(name: str) -> Response:
    with database().reading() as session:
        return json({"quota_class_set": {"id": name, **_class(quotas.defaults(session))}})


@compute.put("/os-quota-class-sets/<name>")
@require("os_compute_api:os-quota-class-sets:update")
def update_quota_class(name: str) -> Response:
    if name != "default":
        raise errors.BadRequest(
            "There is one quota class, default: the limits of projects that have none of their own."
        )
    wanted = _numbers(_asked("quota_class_set"), set(_class(quotas.DEFAULTS)))
    with transaction() as session:
        quotas.set_limits(session, quotas.DEFAULT_PROJECT, wanted)
        session.flush()
        return json({"quota_class_set": _class(quotas.defaults(session))})


def _user_id() -> str | None:
    """Return the user that the request is about, None for the whole project. Raises BadRequest."""
    user_id = request.args.get("user_id")
    if user_id is not None and not (len(user_id) <= 64 and user_id.isprintable()):
        raise errors.BadRequest(f"Invalid input for query parameters user_id. Value: {user_id[:64]!r}")
    return user_id or None


def _limits(session: Session, project_id: str) -> dict[str, int]:
    """Return the limits of the project, or of the user in it that the request names."""
    user_id = _user_id()
    own = {} if user_id is None else quotas.user_limits(session, project_id, user_id)
    return quotas.limits(session, project_id) | own


def _usage(session: Session, project_id: str) -> dict[str, int]:
    user_id = _user_id()
    if user_id is None:
        return quotas.usage(session, project_id)
    return claims.user_usage(session, project_id, user_id)


def _check_range(session: Session, project_id: str, wanted: Mapping[str, int]) -> None:
    """Raise BadRequest for limits below what is used, or above what the project leaves to the user."""
    user_id = _user_id()
    used = _usage(session, project_id)
    largest = {} if user_id is None else quotas.largest_user_limits(session, project_id, user_id)
    for name, limit in wanted.items():
        if 0 <= limit < used.get(name, 0):
            raise errors.BadRequest(
                f"Quota limit {limit} for {name} must be greater than or equal to already used and reserved "
                f"{used[name]}."
            )
        if (most := largest.get(name, -1)) >= 0 and (limit < 0 or limit > most):
            raise errors.BadRequest(f"Quota limit {limit} for {name} must be less than or equal to {most}.")


def _asked(key: str) -> dict[str, Any]:
    body = json_body()
    asked = body.get(key) if isinstance(body, dict) else None
    if not isinstance(asked, dict):
        raise errors.BadRequest(f"Invalid input for field/attribute body. '{key}' is a required property")
    return dict(asked)


def _numbers(asked: Mapping[str, Any], known: set[str]) -> dict[str, int]:
    """Limits, as numbers or digits. Raises BadRequest for what is none, and for limits that are not known."""
    wanted: dict[str, int] = {}
    for name, value in asked.items():
        if name not in known:
            raise errors.BadRequest(f"Additional properties are not allowed ('{name}' was unexpected)")
        try:
            number = parse_integer(value) if isinstance(value, str) else value if type(value) is int else None
        except ValueError:
            number = None
        if number is None:
            raise errors.BadRequest(
                f"Invalid input for field/attribute {name}. Value: {value}. {value!r} is not of type 'integer'"
            )
        if not -1 <= number <= MAXIMUM:
            limit = "less than the minimum of -1" if number < -1 else f"greater than the maximum of {MAXIMUM}"
            raise errors.BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. {number} is {limit}")
        wanted[name] = number
    return wanted


def _shown(limits: Mapping[str, int]) -> dict[str, int]:
    hidden: set[str] = set()
    if version() > NETWORK_PROXY_UNTIL:
        hidden |= NETWORK
    if version() > FILES_UNTIL:
        hidden |= FILES
    return {name: limit for name, limit in limits.items() if name not in hidden}


def _class(limits: Mapping[str, int]) -> dict[str, int]:
    """As of a project, but networks went and server groups came with 2.50."""
    hidden = NETWORK if version() >= CLASS_GROUPS_SINCE else {"server_groups", "server_group_members"}
    if version() > FILES_UNTIL:
        hidden = hidden | FILES
    return {name: limit for name, limit in limits.items() if name not in hidden}
