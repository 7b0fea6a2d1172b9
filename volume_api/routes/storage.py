"""/v3: empty lists, limits and quotas of 0, refusals.

Every path exists with and without the project id in front, as in Cinder before and after 3.67.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from app.core.errors import BadRequest
from app.web.context import caller
from app.web.microversion import VOLUME
from app.web.policy import enforce, require
from app.web.responses import json
from volume_api import stub
from volume_api.views import limits as views

blueprint = Blueprint("volume_storage", __name__)
VOLUME.install(blueprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A resource of Cinder with its policy names. `create` is None when there is no POST."""

    collection: str
    title: str
    key: str
    get: str
    get_all: str
    create: str | None
    change: str


KINDS = (
    Kind(
        collection="volumes",
        title="Volume",
        key="volumes",
        get="volume:get",
        get_all="volume:get_all",
        create="volume:create",
        change="volume:update",
    ),
    Kind(
        collection="snapshots",
        title="Snapshot",
        key="snapshots",
        get="volume:get_snapshot",
        get_all="volume:get_all_snapshots",
        create="volume:create_snapshot",
        change="volume:delete_snapshot",
    ),
    Kind(
        collection="backups",
        title="Backup",
        key="backups",
        get="backup:get",
        get_all="backup:get_all",
        create="backup:create",
        change="backup:delete",
    ),
    Kind(
        collection="types",
        title="Volume type",
        key="volume_types",
        get="volume_extension:type_get",
        get_all="volume_extension:type_get_all",
        create=None,
        change="volume_extension:type_create",
    ),
)


def _route(path: str, name: str, view: Callable[..., Response], *methods: str) -> None:
    def with_project(project_id: str, **arguments: str) -> Response:
        if project_id != caller().project_id:
            raise BadRequest("Malformed request url")
        return view(**arguments)

    with_project.rule = view.rule  # type: ignore[attr-defined]
    blueprint.add_url_rule(path, name, view, methods=methods)
    blueprint.add_url_rule(f"/<project_id>{path}", f"{name}_of_project", with_project, methods=methods)


def _empty(rule: str, body: dict[str, Any]) -> Callable[[], Response]:
    @require(rule)
    def empty() -> Response:
        return json(body)

    return empty


def _unknown(rule: str, title: str) -> Callable[[str], Response]:
    @require(rule)
    def unknown(key: str) -> Response:
        raise stub.not_found(title, key)

    return unknown


def _create(rule: str, what: str) -> Callable[[], Response]:
    @require(rule)
    def create() -> Response:
        raise stub.VolumesExceeded(what)

    return create


@require("limits_extension:used_limits")
def limits() -> Response:
    return json(views.limits())


@require("volume_extension:quotas:show")
def quota_set(key: str) -> Response:
    """Return the quotas of the project `key`."""
    enforce("volume_extension:quotas:show", {"project_id": key})
    return json(views.quota_set(key, usage=request.args.get("usage", "").lower() == "true"))


@require("volume_extension:quotas:update")
def change_quota_set(key: str) -> Response:  # noqa: ARG001
    raise stub.quota_change_refused()


for _kind in KINDS:
    _path, _name = f"/{_kind.collection}", _kind.collection
    _route(_path, f"{_name}_index", _empty(_kind.get_all, {_kind.key: []}), "GET")
    if _kind.create:
        _route(f"{_path}/detail", f"{_name}_detail", _empty(_kind.get_all, {_kind.key: []}), "GET")
        _route(_path, f"{_name}_create", _create(_kind.create, _kind.collection), "POST")
    _route(f"{_path}/<key>", f"{_name}_show", _unknown(_kind.get, _kind.title), "GET")
    _route(f"{_path}/<key>", f"{_name}_change", _unknown(_kind.change, _kind.title), "PUT", "DELETE")
    _route(f"{_path}/<key>/action", f"{_name}_action", _unknown(_kind.change, _kind.title), "POST")

EMPTY: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("/os-availability-zone", "volume:availability_zone_list", {"availabilityZoneInfo": []}),
    ("/extensions", "volume:extensions_list", {"extensions": []}),
    ("/os-services", "volume_extension:services:index", {"services": []}),
    ("/os-volume-transfer", "volume:get_all_transfers", {"transfers": []}),
    ("/os-volume-transfer/detail", "volume:get_all_transfers", {"transfers": []}),
)

for _path, _rule, _body in EMPTY:
    _route(_path, _path.strip("/").replace("/", "_"), _empty(_rule, _body), "GET")

_route("/limits", "limits", limits, "GET")
_route("/os-quota-sets/<key>", "quota_set", quota_set, "GET")
_route("/os-quota-sets/<key>/defaults", "quota_defaults", quota_set, "GET")
_route("/os-quota-sets/<key>", "change_quota_set", change_quota_set, "PUT", "DELETE")
