"""/v2.0/{networks,subnets,ports,subnetpools}/{id}/tags."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.policy import require
from app.web.responses import empty, json
from network_api.resources import networks, ports, subnet_pools, subnets
from network_api.resources.tags import Tagged, replace_tags
from network_api.routes.params.owners import enforce_on
from network_api.schemas.fields import Tag
from network_api.schemas.tags import ReplaceTags

blueprint = Blueprint("network_tags", __name__)


class TagNotFound(NotFound):
    """The resource does not have the tag."""

    kind = "TagNotFound"

    def __init__(self, tag: str) -> None:
        super().__init__(f"Tag {tag} could not be found.")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource with tags; `name` is the last part of its policy names."""

    name: str
    find: Callable[..., Tagged]


KINDS = (
    Kind("network", networks.find),
    Kind("subnet", subnets.find),
    Kind("port", ports.find),
    Kind("subnetpool", subnet_pools.find),
)


def _lock(session: Session, kind: Kind, key: str) -> Tagged:
    resource = kind.find(session, caller(), key, lock=True)
    enforce_on(f"update_{kind.name}", resource.project_id)
    return resource


def _set(kind: Kind, key: str, change: Callable[[list[str]], list[str]]) -> list[str]:
    """Apply `change` to the resource's tags and return the result."""
    with database().transaction() as session:
        resource = _lock(session, kind, key)
        tags = parse(ReplaceTags, {"tags": change(list(resource.tags))}).tags
        replace_tags(clock().now(), resource, tags)
    return tags


def _index(kind: Kind) -> Callable[[str], Response]:
    @require(f"get_{kind.name}")
    def index(key: str) -> Response:
        with database().reading() as session:
            return json({"tags": kind.find(session, caller(), key).tags})

    return index


def _replace(kind: Kind) -> Callable[[str], Response]:
    @require(f"update_{kind.name}")
    def replace(key: str) -> Response:
        tags = parse(ReplaceTags, json_body()).tags
        return json({"tags": _set(kind, key, lambda _old: tags)})

    return replace


def _extend(kind: Kind) -> Callable[[str], Response]:
    @require(f"update_{kind.name}")
    def extend(key: str) -> Response:
        tags = parse(ReplaceTags, json_body()).tags
        return json({"tags": _set(kind, key, lambda old: [*old, *tags])})

    return extend


def _clear(kind: Kind) -> Callable[[str], Response]:
    @require(f"update_{kind.name}")
    def clear(key: str) -> Response:
        _set(kind, key, lambda _old: [])
        return empty()

    return clear


def _show(kind: Kind) -> Callable[[str, Tag], Response]:
    @require(f"get_{kind.name}")
    def show(key: str, tag: str) -> Response:
        with database().reading() as session:
            if tag not in kind.find(session, caller(), key).tags:
                raise TagNotFound(tag)
        return empty()

    return show


def _add(kind: Kind) -> Callable[[str, Tag], Response]:
    @require(f"update_{kind.name}")
    def add(key: str, tag: str) -> Response:
        _set(kind, key, lambda old: [*old, tag])
        return empty(201)

    return add


def _remove(kind: Kind) -> Callable[[str, Tag], Response]:
    @require(f"update_{kind.name}")
    def remove(key: str, tag: str) -> Response:
        def without(old: list[str]) -> list[str]:
            if tag not in old:
                raise TagNotFound(tag)
            return [other for other in old if other != tag]

        _set(kind, key, without)
        return empty()

    return remove


VIEWS: tuple[tuple[str, str, Callable[[Kind], Callable[..., Any]]], ...] = (
    ("GET", "", _index),
    ("PUT", "", _replace),
    ("POST", "", _extend),
    ("DELETE", "", _clear),
    ("GET", "/<tag>", _show),
    ("PUT", "/<tag>", _add),
    ("DELETE", "/<tag>", _remove),
)

for _kind in KINDS:
    for _method, _end, _make in VIEWS:
        blueprint.add_url_rule(
            f"/{_kind.name}s/<key>/tags{_end}",
            f"{_kind.name}{_make.__name__}",
            _make(_kind),
            methods=[_method],
        )
