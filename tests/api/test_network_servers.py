"""Ports of servers and selection of a server's network."""

from collections.abc import Callable
from typing import Any

from tests.api.conftest import Api, Host

V2 = "/network/v2.0"
SERVERS = "/compute/v2.1/servers"


def make_network(actor: Api, name: str, *, subnet: bool = True) -> str:
    network_id: str = actor.post(f"{V2}/networks", json={"network": {"name": name}}).json["network"]["id"]
    if subnet:
        answer = actor.post(f"{V2}/subnets", json={"subnet": {"network_id": network_id}})
        assert answer.status_code == 201, answer.text
    return network_id


def ports_of(actor: Api, server_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = actor.get(f"{V2}/ports?device_id={server_id}").json["ports"]
    return found


def create(actor: Api, image: str, networks: Any) -> Any:
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1", "networks": networks}}
    return actor.at("2.37").post(SERVERS, json=body)


def test_a_server_creates_and_deletes_its_port(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    server_id = make_server()
    [port] = ports_of(as_member, server_id)
    address = as_member.get(f"{SERVERS}/{server_id}").json["server"]["addresses"]["public"][0]
    assert (port["status"], port["device_owner"].partition(":")[0]) == ("ACTIVE", "compute")
    assert (address["addr"], address["OS-EXT-IPS-MAC:mac_addr"]) == (
        port["fixed_ips"][0]["ip_address"],
        port["mac_address"],
    )
    assert as_member.delete(f"{V2}/ports/{port['id']}").status_code == 409
    as_member.delete(f"{SERVERS}/{server_id}")
    host.work()
    assert ports_of(as_member, server_id) == []


def test_an_existing_port_outlives_its_server(as_member: Api, image: str, host: Host) -> None:
    network_id = make_network(as_member, "own")
    port = as_member.post(f"{V2}/ports", json={"port": {"network_id": network_id}}).json["port"]
    answer = create(as_member, image, [{"port": port["id"]}])
    assert answer.status_code == 202, answer.text
    host.work()
    server_id = answer.json["server"]["id"]
    [bound] = ports_of(as_member, server_id)
    assert (bound["id"], bound["status"], bound["fixed_ips"]) == (port["id"], "ACTIVE", port["fixed_ips"])
    assert create(as_member, image, [{"port": port["id"]}]).status_code in (400, 409)
    as_member.delete(f"{SERVERS}/{server_id}")
    host.work()
    left = as_member.get(f"{V2}/ports/{port['id']}").json["port"]
    assert (left["device_id"], left["status"]) == ("", "DOWN")


def test_auto_selects_the_only_network_of_the_project(as_member: Api, image: str, host: Host) -> None:
    first = make_network(as_member, "first")
    server_id = create(as_member, image, "auto").json["server"]["id"]
    assert ports_of(as_member, server_id)[0]["network_id"] == first
    make_network(as_member, "second")
    answer = create(as_member, image, "auto")
    assert answer.status_code == 409
    assert "Multiple possible networks" in answer.text


def test_an_unusable_network_is_a_bad_request(as_member: Api, as_admin: Api, image: str, host: Host) -> None:
    bare = make_network(as_member, "bare", subnet=False)
    answer = create(as_member, image, [{"uuid": bare}])
    assert (answer.status_code, "requires a subnet" in answer.text) == (400, True)
    down = make_network(as_member, "down")
    as_member.put(f"{V2}/networks/{down}", json={"network": {"admin_state_up": False}})
    answer = create(as_member, image, [{"uuid": down}])
    assert (answer.status_code, "administratively down" in answer.text) == (400, True)
    foreign = make_network(as_admin, "foreign")
    answer = create(as_member, image, [{"uuid": foreign}])
    assert (answer.status_code, "could not be found" in answer.text) == (400, True)


def test_several_interfaces_keep_their_order(as_member: Api, image: str, host: Host) -> None:
    names = ["c", "a", "b"]
    networks = [{"uuid": make_network(as_member, name)} for name in names]
    server_id = create(as_member, image, networks).json["server"]["id"]
    host.work()
    addresses = as_member.get(f"{SERVERS}/{server_id}").json["server"]["addresses"]
    assert list(addresses) == names
