"""Networks with the `openstack` command and openstacksdk against a running cloud."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from openstack import exceptions
from openstack.connection import Connection

from tests.contract.conftest import Cloud


@pytest.fixture
def connection(cloud: Cloud) -> Iterator[Connection]:
    with cloud.connect() as made:
        yield made


@pytest.fixture
def network(connection: Connection) -> Iterator[Any]:
    """A network `lab` with a subnet; deleted afterwards with its ports."""
    made = connection.network.create_network(name="lab")
    connection.network.create_subnet(network_id=made.id, ip_version=6, name="lab")
    yield connection.network.get_network(made.id)
    for port in connection.network.ports(network_id=made.id):
        connection.network.delete_port(port)
    connection.network.delete_network(made)


def test_the_openstack_command_creates_network_resources(cloud: Cloud) -> None:
    cloud.cli("network", "create", "mine", "--tag", "red")
    subnet = json.loads(cloud.cli("subnet", "create", "--network", "mine", "--ip-version", "6", "mine", "-f", "json"))
    assert subnet["cidr"].endswith("::/64")
    assert (subnet["ipv6_ra_mode"], subnet["ipv6_address_mode"]) == ("slaac", "slaac")
    port = json.loads(
        cloud.cli("port", "create", "--network", "mine", "--mac-address", "02:00:f0:a9:c4:4e", "p", "-f", "json")
    )
    assert port["fixed_ips"][0]["ip_address"].endswith(":0:f0ff:fea9:c44e")
    cloud.cli("port", "set", "--name", "q", "--tag", "blue", "p")
    assert cloud.cli("port", "list", "--tags", "blue", "-f", "value", "-c", "Name").strip() == "q"
    assert "mine" in cloud.cli("network", "list", "--tags", "red")
    assert "still in use" in cloud.cli("network", "delete", "mine", check=False)
    cloud.cli("port", "delete", "q")
    cloud.cli("network", "delete", "mine")
    assert "mine" not in cloud.cli("subnet", "list")


def test_the_openstack_command_sets_sixstack_attributes(cloud: Cloud, connection: Connection, network: Any) -> None:
    """The commands are those of docs/network.md."""
    cloud.cli("network", "set", "--extra-property", "type=bool,name=isolated,value=true", "lab")
    assert connection.network.get_network(network.id).to_dict()["isolated"] is True
    connection.network.create_port(network_id=network.id, name="p")
    allowed = f"ip-address={connection.network.get_subnet(network.subnet_ids[0]).cidr}"
    cloud.cli("port", "set", "--allowed-address", allowed, "p")
    assert allowed.partition("=")[2] in cloud.cli("port", "show", "p", "-c", "allowed_address_pairs")
    for value in ("203.0.113.7", ""):
        mapped = f"type=str,name=ipv4_address,value={value}"
        cloud.cli("port", "set", "--extra-property", mapped, "p", cloud="sixstack-admin")
        [port] = connection.network.ports(network_id=network.id)
        assert port.to_dict()["ipv4_address"] == (value or None)
    cloud.cli("network", "create", "inside")
    cloud.cli("subnet", "create", "--network", "inside", "--ip-version", "6", "--gateway", "none", "inside")
    assert cloud.cli("subnet", "show", "inside", "-f", "value", "-c", "gateway_ip").strip() == "None"
    cloud.cli("network", "delete", "inside")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("router create r", "Routers are not needed"),
        ("floating ip create public", "Floating IPs are not needed"),
        ("security group create g", "no security groups"),
        ("network create --external n", "There are no external networks"),
        ("volume create --size 1 v", "no volumes"),
    ],
)
def test_the_openstack_command_shows_why_it_is_refused(cloud: Cloud, words: str, reason: str) -> None:
    assert reason in cloud.cli(*words.split(), check=False)


@pytest.mark.parametrize(
    "words",
    ["quota show", "quota show --usage", "subnet pool list", "extension list --network", "limits show --absolute"],
)
def test_the_openstack_command_lists_resources(cloud: Cloud, words: str) -> None:
    assert cloud.cli(*words.split())


def test_an_ipv4_subnet_is_refused_with_advice(connection: Connection, network: Any) -> None:
    with pytest.raises(exceptions.BadRequestException, match="ip_version 6"):
        connection.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.0.0.0/24")


def test_the_sdk_pages_filters_and_tags(connection: Connection, network: Any) -> None:
    made = [connection.network.create_port(network_id=network.id, name=f"p{number}") for number in range(5)]
    paged = list(connection.network.ports(network_id=network.id, limit=2, sort_key="name", sort_dir="desc"))
    assert [port.name for port in paged] == ["p4", "p3", "p2", "p1", "p0"]
    connection.network.set_tags(made[0], ["x"])
    assert [port.id for port in connection.network.ports(tags="x")] == [made[0].id]
    address = made[1].fixed_ips[0]["ip_address"]
    assert [port.id for port in connection.network.ports(fixed_ips=f"ip_address={address}")] == [made[1].id]
    assert connection.network.find_port("p2").id == made[2].id


def test_an_existing_port_outlives_its_server(cloud: Cloud, connection: Connection, network: Any) -> None:
    port = connection.network.create_port(network_id=network.id, name="kept")
    image, flavor = connection.image.find_image("tiny"), connection.compute.find_flavor("tiny")
    server = connection.create_server(
        "on-a-port", image=image, flavor=flavor, nics=[{"port-id": port.id}], wait=True, timeout=120, auto_ip=False
    )
    assert server.addresses["lab"][0]["addr"] == port.fixed_ips[0]["ip_address"]
    assert connection.network.get_port(port.id).status == "ACTIVE"
    assert [found.id for found in connection.network.ports(device_id=server.id)] == [port.id]
    with pytest.raises(exceptions.ConflictException):
        connection.network.delete_port(port)
    # A change of resolvers reaches the router advertisements of running guests.
    connection.network.update_subnet(network.subnet_ids[0], dns_nameservers=["2001:db8::53"])
    announced, deadline = cloud.state / "radvd/radvd.conf", time.monotonic() + 60
    while "RDNSS 2001:db8::53" not in announced.read_text():
        assert time.monotonic() < deadline, announced.read_text()
        time.sleep(0.1)
    assert connection.delete_server(server.id, wait=True)
    left = connection.network.get_port(port.id)
    assert (left.device_id, left.status) == ("", "DOWN")
