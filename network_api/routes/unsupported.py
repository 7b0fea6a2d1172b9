"""Unsupported resources of Neutron: lists are empty, creating one is refused with the reason."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, Response

from app.core.errors import BadRequest, NotFound
from app.web.policy import require
from app.web.responses import json

blueprint = Blueprint("network_unsupported", __name__)


@dataclass(frozen=True, slots=True)
class UnsupportedResource:
    """A resource of Neutron that this cloud does not have. `rule` is the last part of its policy names."""

    collection: str
    rule: str
    kind: str
    title: str
    reason: str


KINDS = (
    UnsupportedResource(
        "floatingips",
        "floatingip",
        "FloatingIPNotFound",
        "Floating IP",
        "Floating IPs are not needed: every server has a public IPv6 address of its own.",
    ),
    UnsupportedResource(
        "routers",
        "router",
        "RouterNotFound",
        "Router",
        "Routers are not needed: every network is routed from the moment it has a subnet.",
    ),
    UnsupportedResource(
        "security-groups",
        "security_group",
        "SecurityGroupNotFound",
        "Security group",
        "There are no security groups: nothing is filtered on the way to a server, which may have its own firewall.",
    ),
    UnsupportedResource(
        "security-group-rules",
        "security_group_rule",
        "SecurityGroupRuleNotFound",
        "Security group rule",
        "There are no security groups: nothing is filtered on the way to a server, which may have its own firewall.",
    ),
)


class UnsupportedOperation(BadRequest):
    """The resource is not supported by this cloud."""

    kind = "BadRequest"


def _index(thing: UnsupportedResource) -> Callable[[], Response]:
    @require(f"get_{thing.rule}")
    def index() -> Response:
        return json({thing.collection.replace("-", "_"): []})

    return index


def _absent(thing: UnsupportedResource, verb: str) -> Callable[..., Response]:
    @require(f"{verb}_{thing.rule}")
    def absent(key: str, action: str = "") -> Response:  # noqa: ARG001
        error = NotFound(f"{thing.title} {key} could not be found.")
        error.kind = thing.kind  # type: ignore[attr-defined]
        raise error

    return absent


def _create(thing: UnsupportedResource) -> Callable[[], Response]:
    @require(f"create_{thing.rule}")
    def create() -> Response:
        raise UnsupportedOperation(thing.reason)

    return create


for _thing in KINDS:
    _path, _name = f"/{_thing.collection}", _thing.rule
    blueprint.add_url_rule(_path, f"{_name}_index", _index(_thing), methods=["GET"])
    blueprint.add_url_rule(_path, f"{_name}_create", _create(_thing), methods=["POST"])
    blueprint.add_url_rule(f"{_path}/<key>", f"{_name}_show", _absent(_thing, "get"), methods=["GET"])
    blueprint.add_url_rule(f"{_path}/<key>", f"{_name}_change", _absent(_thing, "create"), methods=["PUT", "DELETE"])
blueprint.add_url_rule("/routers/<key>/<action>", "router_action", _absent(KINDS[1], "create"), methods=["PUT"])
