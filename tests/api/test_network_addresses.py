# ruff: noqa: F401, F811 (fixtures)
"""Addresses with a scope id are refused in requests, and repaired in rows of earlier releases."""

import importlib
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import update

from network_api.models import Port, Subnet
from tests.api.conftest import Api
from tests.api.network_fixtures import Actor, Cloud, cloud, member, operator
from tests.api.test_network_networks import V2, make_network, make_subnet

EVIL = "2a0a:e5c1:111:1::5%x {\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"dns_nameservers": ["fe80::1%eth0"]},
        {"dns_nameservers": ["2001:db8::53%\n}; interface x {"]},
        {"dns_nameservers": ["fe80::1"]},
        {"dns_nameservers": ["::1"]},
        {"dns_nameservers": ["ff02::fb"]},
        {"gateway_ip": EVIL},
    ],
)
def test_subnets_refuse_scope_ids(member: Actor, fields: dict[str, Any]) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    assert member.call_for_fault("PUT", f"{V2}/subnets/{subnet['id']}", {"subnet": fields})[0] == 400
    other = {"subnet": {"network_id": make_network(member)["id"], **fields}}
    assert member.call_for_fault("POST", f"{V2}/subnets", other)[0] == 400


def test_prefixes_and_pools_refuse_scope_ids(member: Actor, operator: Actor) -> None:
    new = {"subnet": {"network_id": make_network(member)["id"], "cidr": "2a0a:e5c1:111:7::%x/64"}}
    assert member.call_for_fault("POST", f"{V2}/subnets", new)[0] == 400
    pool = {"subnetpool": {"name": "x", "prefixes": ["2001:db8::%x/48"]}}
    assert operator.call_for_fault("POST", f"{V2}/subnetpools", pool)[0] == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"fixed_ips": [{"ip_address": EVIL}]},
        {"allowed_address_pairs": [{"ip_address": EVIL}]},
        {"allowed_address_pairs": [{"ip_address": "2a0a:e5c1:111:1::%x/96"}]},
    ],
)
def test_ports_refuse_scope_ids(member: Actor, fields: dict[str, Any]) -> None:
    network = make_network(member)
    make_subnet(member, network["id"])
    port = member.post(f"{V2}/ports", {"port": {"network_id": network["id"]}})["port"]
    assert member.call_for_fault("PUT", f"{V2}/ports/{port['id']}", {"port": fields})[0] == 400
    new = {"port": {"network_id": network["id"], **fields}}
    assert member.call_for_fault("POST", f"{V2}/ports", new)[0] == 400


def test_compute_refuses_scope_ids(as_member: Api, image: str) -> None:
    server = {"name": "x", "flavorRef": "1", "imageRef": image}
    for fields in ({"accessIPv6": EVIL}, {"networks": [{"uuid": "x", "fixed_ip": EVIL}]}):
        assert as_member.post("/compute/v2.1/servers", json={"server": server | fields}).status_code == 400


def test_stored_addresses_are_repaired(cloud: Cloud, member: Actor) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    first, second = (member.post(f"{V2}/ports", {"port": {"network_id": network["id"]}})["port"] for _ in range(2))
    [taken], [own] = first["fixed_ips"], second["fixed_ips"]
    with cloud.database.transaction() as session:
        session.execute(
            update(Subnet)
            .where(Subnet.id == subnet["id"])
            .values(gateway_ip=f"{subnet['gateway_ip']}%9", dns_nameservers=["fe80::1%eth0", "2001:db8::53%x"])
        )
        pairs = [{"mac_address": second["mac_address"], "ip_address": "2a0a:e5c1:111:1::5%x/128"}]
        scoped = f"{taken['ip_address']}%1"[:39]
        session.execute(
            update(Port).where(Port.id == second["id"]).values(ip_address=scoped, allowed_address_pairs=pairs)
        )
    migration = importlib.import_module("migrations.versions.0041_addresses")
    with cloud.database.writer.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        migration.upgrade()
    found = member.get(f"{V2}/subnets/{subnet['id']}")["subnet"]
    assert (found["gateway_ip"], found["dns_nameservers"]) == (subnet["gateway_ip"], ["2001:db8::53"])
    port = member.get(f"{V2}/ports/{second['id']}")["port"]
    assert port["fixed_ips"] == [own], "EUI-64 address, because the unscoped address is in use"
    assert port["allowed_address_pairs"][0]["ip_address"] == "2a0a:e5c1:111:1::5/128"
