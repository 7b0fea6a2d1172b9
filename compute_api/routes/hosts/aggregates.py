"""Routes of host aggregates; 2.41 shows their UUID."""

from collections.abc import Sequence
from typing import Annotated, Any

from flask import Response
from pydantic import Field

from app.core import errors
from app.core.numbers import parse_integer
from app.web.bodies import Body, json_body, parse
from app.web.context import clock, database, settings
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.hosts import aggregates
from compute_api.models import Aggregate
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.fields import Name
from compute_api.views.servers import format_microseconds

UUID_SINCE = v("2.41")


class Fields(Body):
    """A new aggregate."""

    name: Name
    availability_zone: Name | None = None


class Create(Body):
    """POST /os-aggregates."""

    aggregate: Fields


class ChangedFields(Body):
    """What PUT may change."""

    name: Name | None = None
    availability_zone: Name | None = None


class Change(Body):
    """PUT /os-aggregates/{id}."""

    aggregate: ChangedFields


class HostName(Body):
    """Which host."""

    host: Annotated[str, Field(min_length=1, max_length=255)]


class AddHost(Body):
    """The add_host action."""

    add_host: HostName


class RemoveHost(Body):
    """The remove_host action."""

    remove_host: HostName


class Metadata(Body):
    """Items; null removes one."""

    metadata: dict[Annotated[str, Field(min_length=1, max_length=255)], Annotated[str, Field(max_length=255)] | None]


class SetMetadata(Body):
    """The set_metadata action."""

    set_metadata: Metadata


@compute.get("/os-aggregates")
@require("os_compute_api:os-aggregates:index")
def list_aggregates() -> Response:
    with database().reading() as session:
        found = aggregates.list_aggregates(session)
        hosts = aggregates.hosts_by_aggregate(session, [one.id for one in found])
    return json({"aggregates": [_shown(one, hosts.get(one.id, ())) for one in found]})


@compute.post("/os-aggregates")
@require("os_compute_api:os-aggregates:create")
def create_aggregate() -> Response:
    asked = parse(Create, json_body()).aggregate
    with transaction() as session:
        made = aggregates.create(session, clock().now(), asked.name, asked.availability_zone)
    body = _shown(made, ())
    del body["hosts"], body["metadata"]
    return json({"aggregate": body})


@compute.get("/os-aggregates/<aggregate_id>")
@require("os_compute_api:os-aggregates:show")
def show_aggregate(aggregate_id: str) -> Response:
    with database().reading() as session:
        found = aggregates.find(session, _number(aggregate_id))
        hosts = aggregates.hosts_by_aggregate(session, [found.id])
    return json({"aggregate": _shown(found, hosts.get(found.id, ()))})


@compute.put("/os-aggregates/<aggregate_id>")
@require("os_compute_api:os-aggregates:update")
def update_aggregate(aggregate_id: str) -> Response:
    asked = parse(Change, json_body()).aggregate
    changes = {name: getattr(asked, name) for name in asked.model_fields_set}
    if not changes:
        raise errors.BadRequest(
            "Invalid input for field/attribute aggregate. Value: {}. {} does not have enough properties"
        )
    with transaction() as session:
        found = aggregates.find(session, _number(aggregate_id))
        aggregates.update_aggregate(session, clock().now(), found, settings().availability_zone, changes)
        session.flush()
        hosts = aggregates.hosts_by_aggregate(session, [found.id])
    return json({"aggregate": _shown(found, hosts.get(found.id, ()))})


@compute.delete("/os-aggregates/<aggregate_id>")
@require("os_compute_api:os-aggregates:delete")
def delete_aggregate(aggregate_id: str) -> Response:
    with transaction() as session:
        aggregates.delete(session, aggregates.find(session, _number(aggregate_id)))
    return empty(200)


@compute.post("/os-aggregates/<aggregate_id>/action")
@require("os_compute_api:os-aggregates:show")
def aggregate_action(aggregate_id: str) -> Response:
    body = json_body()
    name = next(iter(body), None) if isinstance(body, dict) else None
    zone, now = settings().availability_zone, clock().now()
    with transaction() as session:
        found = aggregates.find(session, _number(aggregate_id))
        match name:
            case "add_host":
                enforce("os_compute_api:os-aggregates:add_host")
                aggregates.add_host(session, now, found, parse(AddHost, body).add_host.host, zone)
            case "remove_host":
                enforce("os_compute_api:os-aggregates:remove_host")
                aggregates.remove_host(session, now, found, parse(RemoveHost, body).remove_host.host, zone)
            case "set_metadata":
                enforce("os_compute_api:os-aggregates:set_metadata")
                aggregates.set_metadata(session, now, found, zone, parse(SetMetadata, body).set_metadata.metadata)
            case _:
                raise errors.BadRequest(f"There is no such action: {name}")
        session.flush()
        hosts = aggregates.hosts_by_aggregate(session, [found.id])
    return json({"aggregate": _shown(found, hosts.get(found.id, ()))})


def _number(text: str) -> int:
    try:
        number = parse_integer(text)
    except ValueError:
        raise errors.BadRequest(f"Invalid input received: id must be an integer: {text}") from None
    if not -1 <= number < 2**31:
        raise errors.NotFound(f"Aggregate {text} could not be found.")
    return number


def _shown(aggregate: Aggregate, hosts: Sequence[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": aggregate.id,
        "name": aggregate.name,
        "availability_zone": aggregate.metadata_.get(aggregates.ZONE),
        "hosts": list(hosts),
        "metadata": aggregate.metadata_,
        "created_at": format_microseconds(aggregate.created_at),
        "updated_at": format_microseconds(aggregate.updated_at),
        "deleted": False,
        "deleted_at": None,
    }
    if version() >= UUID_SINCE:
        body["uuid"] = aggregate.uuid
    return body
