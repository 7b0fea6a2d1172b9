"""/v2.0/subnets."""

from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Any

from flask import Blueprint, Response
from sqlalchemy.orm import Session

from app.core.errors import BadRequest, Forbidden
from app.core.reserved import reserved_prefixes
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database, settings
from app.web.policy import is_allowed, require
from app.web.responses import empty, json
from network_api.listings.subnets import SUBNETS
from network_api.models import Network, SubnetPool
from network_api.prefixes import contains, is_local
from network_api.resources import networks, ports, subnet_pools, subnets
from network_api.routes.params.bulk import create_response
from network_api.routes.params.list_params import list_response, show_response
from network_api.routes.params.owners import enforce_on
from network_api.routes.params.revisions import check_revision
from network_api.routes.port_change_hook import notify_port_change
from network_api.schemas.subnets import ChangeSubnet, CreateSubnet, CreateSubnets, NewSubnetFields
from network_api.views import subnets as views

blueprint = Blueprint("network_subnets", __name__)


@blueprint.get("/subnets")
@require("get_subnet")
def index() -> Response:
    return list_response(SUBNETS, "subnets", views.subnet)


@blueprint.get("/subnets/<subnet_id>")
@require("get_subnet")
def show(subnet_id: str) -> Response:
    return show_response(SUBNETS, "subnet", subnet_id, views.subnet)


@blueprint.post("/subnets")
@require("create_subnet")
def create() -> Response:
    return create_response("subnet", CreateSubnet, CreateSubnets, _create)


def _create(wanted: list[NewSubnetFields]) -> list[Mapping[str, Any]]:
    now = clock().now()
    with database().transaction() as session:
        made = []
        for new in wanted:
            network = networks.find(session, caller(), new.network_id, lock=True)
            enforce_on("create_subnet", network.project_id)
            _check_owner(new, network)
            subnet = subnets.create(
                session,
                now,
                subnets.NewSubnet(
                    network=network,
                    pool=_pool(session, new),
                    cidr=new.cidr,
                    gateway=new.gateway_ip if "gateway_ip" in new.model_fields_set else subnets.FIRST_ADDRESS,
                    name=new.name,
                    description=new.description,
                    dns_nameservers=[str(address) for address in new.dns_nameservers],
                    host_routes=new.routes,
                    tags=new.tags,
                ),
            )
            new.check_pools(views.allocation_pools(subnet.cidr, subnet.gateway_ip))
            made.append(SUBNETS.row(session, caller(), subnet.id))
    return [views.subnet(row) for row in made]


def _check_owner(new: NewSubnetFields, network: Network) -> None:
    if new.owner and new.owner != network.project_id:
        raise BadRequest("A subnet belongs to the project of its network.")


def _pool(session: Session, new: NewSubnetFields) -> SubnetPool | None:
    """Return the subnet's pool: the requested one, the one that contains the prefix, or the default pool.

    None for a prefix outside of all pools: operators may choose any, members a /64 of fd00::/8 only.
    """
    if new.subnetpool_id:
        pool = subnet_pools.find(session, caller(), new.subnetpool_id)
        if new.cidr and not contains(pool, new.cidr):
            raise BadRequest(f"Cannot allocate requested subnet from the available set of prefixes: {new.cidr}.")
        return pool
    if new.cidr is None:
        return subnet_pools.default_pool(session)
    found = subnet_pools.find_containing(session, caller(), new.cidr)
    if found is None and not is_allowed("create_subnet:cidr"):
        if (
            is_local(new.cidr)
            and is_allowed("create_subnet:local_cidr")
            and not subnet_pools.any_contains(session, new.cidr)
        ):
            _refuse_reserved(new.cidr)
            return None
        ours = ", ".join(subnet_pools.default_pool(session).prefixes)
        raise Forbidden(
            f"{new.cidr} is outside of this cloud's prefix, {ours}: choose a /64 of that prefix or of fd00::/8, or "
            "omit the cidr to have one allocated."
        )
    return found


def _refuse_reserved(cidr: IPv6Network) -> None:
    """Raise Forbidden for a prefix that the operator uses: hosts would route their own traffic to guests."""
    if any(cidr.overlaps(reserved) for reserved in reserved_prefixes(settings())):
        raise Forbidden(f"{cidr} is reserved by the operator of this cloud.")


@blueprint.put("/subnets/<subnet_id>")
@require("update_subnet")
def change(subnet_id: str) -> Response:
    body = parse(ChangeSubnet, json_body()).subnet
    changes = body.changes("name", "description", "gateway_ip")
    if "dns_nameservers" in body.model_fields_set:
        changes["dns_nameservers"] = [str(address) for address in body.dns_nameservers]
    if "host_routes" in body.model_fields_set:
        changes["host_routes"] = body.routes
    with database().transaction() as session:
        subnet = subnets.find(session, caller(), subnet_id, lock=True)
        enforce_on("update_subnet", subnet.project_id)
        check_revision(subnet)
        gateway = changes.get("gateway_ip", subnet.gateway_ip)
        body.check_pools(
            views.allocation_pools(subnet.cidr, subnet.gateway_ip),
            views.allocation_pools(subnet.cidr, str(gateway) if gateway else None),
        )
        before = (subnet.dns_nameservers, subnet.host_routes)
        subnets.change(session, clock().now(), subnet, changes)
        if (subnet.dns_nameservers, subnet.host_routes) != before:
            notify_port_change(session, ports.list_servers(session, subnet_id=subnet.id))
        row = SUBNETS.row(session, caller(), subnet_id)
    return json({"subnet": views.subnet(row)})


@blueprint.delete("/subnets/<subnet_id>")
@require("delete_subnet")
def delete(subnet_id: str) -> Response:
    with database().transaction() as session:
        subnet = subnets.find(session, caller(), subnet_id, lock=True)
        enforce_on("delete_subnet", subnet.project_id)
        check_revision(subnet)
        network = networks.find(session, caller(), subnet.network_id, lock=True)
        subnets.delete(session, network, subnet)
    return empty()
