"""Routes of quotas: of projects and their users, the defaults, and the class `default` that sets the defaults."""

from collections.abc import Mapping
from typing import Any

from flask import Response, request

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
        return json(
            {
                "quota_set": {
                    "id": project_id,
                    **_filter_limits(quotas.effective_limits(session, project_id, _user_id())),
                }
            }
        )


@compute.get("/os-quota-sets/<project_id>/detail")
@require("os_compute_api:os-quota-sets:detail")
def show_quota_detail(project_id: str) -> Response:
    list_params.check_known("user_id")
    enforce("os_compute_api:os-quota-sets:detail", {"project_id": project_id})
    with database().reading() as session:
        limits = _filter_limits(quotas.effective_limits(session, project_id, _user_id()))
        used = claims.usage(session, project_id, _user_id()) | {
            "server_groups": server_groups.count(session, project_id)
        }
    detail = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    return json({"quota_set": {"id": project_id, **detail}})


@compute.get("/os-quota-sets/<project_id>/defaults")
@require("os_compute_api:os-quota-sets:defaults")
def show_quota_defaults(project_id: str) -> Response:
    with database().reading() as session:
        return json({"quota_set": {"id": project_id, **_filter_limits(quotas.defaults(session))}})


@compute.put("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:update")
def update_quota(project_id: str) -> Response:
    list_params.check_known("user_id")
    fields = _parse_object("quota_set")
    force = list_params.parse_boolean(str(fields.pop("force", "false")))
    fields.pop("tenant_id", None)
    limits = _parse_limits(fields, set(_filter_limits(quotas.DEFAULTS)))
    with transaction() as session:
        if not force:
            claims.check_limits(session, project_id, _user_id(), limits)
        if (user_id := _user_id()) is None:
            quotas.set_limits(session, project_id, limits)
        else:
            quotas.set_user_limits(session, project_id, user_id, limits)
        session.flush()
        return json({"quota_set": _filter_limits(quotas.effective_limits(session, project_id, _user_id()))})


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
def show_quota_filter_class_limits(name: str) -> Response:
    with database().reading() as session:
        return json({"quota_class_set": {"id": name, **_filter_class_limits(quotas.defaults(session))}})


@compute.put("/os-quota-class-sets/<name>")
@require("os_compute_api:os-quota-class-sets:update")
def update_quota_filter_class_limits(name: str) -> Response:
    if name != "default":
        raise errors.BadRequest("The only quota class is default: the limits of projects without limits of their own.")
    limits = _parse_limits(_parse_object("quota_class_set"), set(_filter_class_limits(quotas.DEFAULTS)))
    with transaction() as session:
        quotas.set_limits(session, quotas.DEFAULT_PROJECT, limits)
        session.flush()
        return json({"quota_class_set": _filter_class_limits(quotas.defaults(session))})


def _user_id() -> str | None:
    """Return the user that the request is about, None for the whole project. Raises BadRequest."""
    user_id = request.args.get("user_id")
    if user_id is not None and not (len(user_id) <= 64 and user_id.isprintable()):
        raise errors.BadRequest(f"Invalid input for query parameters user_id. Value: {user_id[:64]!r}")
    return user_id or None


def _parse_object(key: str) -> dict[str, Any]:
    body = json_body()
    fields = body.get(key) if isinstance(body, dict) else None
    if not isinstance(fields, dict):
        raise errors.BadRequest(f"Invalid input for field/attribute body. '{key}' is a required property")
    return dict(fields)


def _parse_limits(fields: Mapping[str, Any], known: set[str]) -> dict[str, int]:
    """Parse limits, which are numbers or digits. Raises BadRequest for other values and unknown names."""
    limits: dict[str, int] = {}
    for name, value in fields.items():
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
        limits[name] = number
    return limits


def _filter_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """Omit the limits that later microversions removed."""
    hidden: set[str] = set()
    if version() > NETWORK_PROXY_UNTIL:
        hidden |= NETWORK
    if version() > FILES_UNTIL:
        hidden |= FILES
    return {name: limit for name, limit in limits.items() if name not in hidden}


def _filter_class_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """Omit limits by microversion: in classes, 2.50 removed networks and added server groups."""
    hidden = NETWORK if version() >= CLASS_GROUPS_SINCE else {"server_groups", "server_group_members"}
    if version() > FILES_UNTIL:
        hidden = hidden | FILES
    return {name: limit for name, limit in limits.items() if name not in hidden}
