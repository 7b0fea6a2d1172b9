"""Routes of host aggregates."""

from flask import Response

from app.core import errors
from app.core.numbers import parse_integer
from app.web.bodies import json_body, parse
from app.web.context import clock, database, settings
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.hosts import aggregates
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.hosts import AddHost, CreateAggregate, RemoveHost, SetMetadata, UpdateAggregate
from compute_api.views import aggregates as views


@compute.get("/os-aggregates")
@require("os_compute_api:os-aggregates:index")
def list_aggregates() -> Response:
    with database().reading() as session:
        found = aggregates.list_aggregates(session)
        hosts = aggregates.hosts_by_aggregate(session, [aggregate.id for aggregate in found])
    shown = [views.show(aggregate, hosts.get(aggregate.id, ()), version()) for aggregate in found]
    return json({"aggregates": shown})


@compute.post("/os-aggregates")
@require("os_compute_api:os-aggregates:create")
def create_aggregate() -> Response:
    fields = parse(CreateAggregate, json_body()).aggregate
    with transaction() as session:
        aggregate = aggregates.create(session, clock().now(), fields.name, fields.availability_zone)
    return json({"aggregate": views.created(aggregate, version())})


@compute.get("/os-aggregates/<aggregate_id>")
@require("os_compute_api:os-aggregates:show")
def show_aggregate(aggregate_id: str) -> Response:
    with database().reading() as session:
        aggregate = aggregates.find(session, _parse_id(aggregate_id))
        hosts = aggregates.hosts_by_aggregate(session, [aggregate.id])
    return json({"aggregate": views.show(aggregate, hosts.get(aggregate.id, ()), version())})


@compute.put("/os-aggregates/<aggregate_id>")
@require("os_compute_api:os-aggregates:update")
def update_aggregate(aggregate_id: str) -> Response:
    fields = parse(UpdateAggregate, json_body()).aggregate
    changes = {name: getattr(fields, name) for name in fields.model_fields_set}
    if not changes:
        raise errors.BadRequest(
            "Invalid input for field/attribute aggregate. Value: {}. {} does not have enough properties"
        )
    with transaction() as session:
        aggregate = aggregates.find(session, _parse_id(aggregate_id))
        aggregates.update_aggregate(session, clock().now(), aggregate, settings().availability_zone, changes)
        session.flush()
        hosts = aggregates.hosts_by_aggregate(session, [aggregate.id])
    return json({"aggregate": views.show(aggregate, hosts.get(aggregate.id, ()), version())})


@compute.delete("/os-aggregates/<aggregate_id>")
@require("os_compute_api:os-aggregates:delete")
def delete_aggregate(aggregate_id: str) -> Response:
    with transaction() as session:
        aggregates.delete(session, aggregates.find(session, _parse_id(aggregate_id)))
    return empty(200)


@compute.post("/os-aggregates/<aggregate_id>/action")
@require("os_compute_api:os-aggregates:show")
def aggregate_action(aggregate_id: str) -> Response:
    body = json_body()
    name = next(iter(body), None) if isinstance(body, dict) else None
    zone, now = settings().availability_zone, clock().now()
    with transaction() as session:
        aggregate = aggregates.find(session, _parse_id(aggregate_id))
        match name:
            case "add_host":
                enforce("os_compute_api:os-aggregates:add_host")
                aggregates.add_host(session, now, aggregate, parse(AddHost, body).add_host.host, zone)
            case "remove_host":
                enforce("os_compute_api:os-aggregates:remove_host")
                aggregates.remove_host(session, now, aggregate, parse(RemoveHost, body).remove_host.host, zone)
            case "set_metadata":
                enforce("os_compute_api:os-aggregates:set_metadata")
                aggregates.set_metadata(session, now, aggregate, zone, parse(SetMetadata, body).set_metadata.metadata)
            case _:
                raise errors.BadRequest(f"There is no such action: {name}")
        session.flush()
        hosts = aggregates.hosts_by_aggregate(session, [aggregate.id])
    return json({"aggregate": views.show(aggregate, hosts.get(aggregate.id, ()), version())})


def _parse_id(text: str) -> int:
    try:
        number = parse_integer(text)
    except ValueError:
        raise errors.BadRequest(f"Invalid input received: id must be an integer: {text}") from None
    if not -1 <= number < 2**31:
        raise errors.NotFound(f"Aggregate {text} could not be found.")
    return number
