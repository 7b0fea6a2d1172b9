"""/v2.0/subnetpools."""

from flask import Blueprint, Response

from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.policy import require
from app.web.responses import empty, json
from network_api.listings.subnet_pools import SUBNET_POOLS
from network_api.resources import subnet_pools
from network_api.routes.params.list_params import list_response, show_response
from network_api.routes.params.owners import owner_of_new_resource
from network_api.routes.params.revisions import check_revision
from network_api.schemas.subnetpools import ChangeSubnetPool, CreateSubnetPool
from network_api.views.subnetpools import subnetpool

blueprint = Blueprint("network_subnetpools", __name__)


@blueprint.get("/subnetpools")
@require("get_subnetpool")
def index() -> Response:
    return list_response(SUBNET_POOLS, "subnetpools", subnetpool)


@blueprint.get("/subnetpools/<pool_id>")
@require("get_subnetpool")
def show(pool_id: str) -> Response:
    return show_response(SUBNET_POOLS, "subnetpool", pool_id, subnetpool)


@blueprint.post("/subnetpools")
@require("create_subnetpool")
def create() -> Response:
    new = parse(CreateSubnetPool, json_body()).subnetpool
    with database().transaction() as session:
        pool = subnet_pools.create(
            session,
            clock().now(),
            project_id=owner_of_new_resource(new.owner),
            name=new.name,
            description=new.description,
            prefixes=new.prefixes,
            shared=new.shared,
            tags=new.tags,
        )
        row = SUBNET_POOLS.row(session, caller(), pool.id)
    return json({"subnetpool": subnetpool(row)}, 201)


@blueprint.put("/subnetpools/<pool_id>")
@require("update_subnetpool")
def change(pool_id: str) -> Response:
    body = parse(ChangeSubnetPool, json_body()).subnetpool
    changes = body.changes("name", "description", "prefixes")
    with database().transaction() as session:
        pool = subnet_pools.find(session, caller(), pool_id, lock=True)
        check_revision(pool)
        subnet_pools.change(session, clock().now(), pool, changes)
        row = SUBNET_POOLS.row(session, caller(), pool_id)
    return json({"subnetpool": subnetpool(row)})


@blueprint.delete("/subnetpools/<pool_id>")
@require("delete_subnetpool")
def delete(pool_id: str) -> Response:
    with database().transaction() as session:
        pool = subnet_pools.find(session, caller(), pool_id, lock=True)
        check_revision(pool)
        subnet_pools.delete(session, pool)
    return empty()
