"""Changes of networks, subnets and ports reach the hosts of running servers."""

from collections.abc import Callable
from typing import Any

from tests.api.conftest import Api, Host
from tests.api.test_network_servers import V2, create, make_network, ports_of

MAC = "00:00:5e:00:02:01"


def run_server(actor: Api, image: str, host: Host, network_id: str) -> tuple[str, dict[str, Any]]:
    """A running server on the network, and its port."""
    server_id = create(actor, image, [{"uuid": network_id}]).json["server"]["id"]
    host.work()
    return server_id, ports_of(actor, server_id)[0]


def reconciled_nic(host: Host, server_id: str) -> Any:
    """Run queued operations and return the first NIC of the host's machine spec."""
    host.work()
    spec = host.hypervisor.spec(server_id)
    assert spec is not None
    return spec.nics[0]


def test_a_changed_name_server_reaches_running_servers(as_member: Api, image: str, host: Host) -> None:
    network_id = make_network(as_member, "own")
    server_id, _ = run_server(as_member, image, host, network_id)
    subnet_id = as_member.get(f"{V2}/networks/{network_id}").json["network"]["subnets"][0]
    answer = as_member.put(f"{V2}/subnets/{subnet_id}", json={"subnet": {"dns_nameservers": ["2001:db8::53"]}})
    assert answer.status_code == 200, answer.text
    assert [str(address) for address in reconciled_nic(host, server_id).dns_servers] == ["2001:db8::53"]
    server = as_member.get(f"/compute/v2.1/servers/{server_id}").json["server"]
    assert (server["status"], server["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert len(ports_of(as_member, server_id)) == 1
    before = len(host.hypervisor.calls)
    as_member.put(f"{V2}/subnets/{subnet_id}", json={"subnet": {"name": "renamed"}})
    host.work()
    assert ("ensure_nics", server_id) not in host.hypervisor.calls[before:], "a name is not part of the machine spec"


def test_isolation_of_a_network_is_switched_on_and_off(as_member: Api, image: str, host: Host) -> None:
    network_id = make_network(as_member, "own")
    server_id, _ = run_server(as_member, image, host, network_id)
    path = f"{V2}/networks/{network_id}"
    assert as_member.get(path).json["network"]["isolated"] is False
    for wanted in (True, False):
        changed = as_member.put(path, json={"network": {"isolated": wanted}}).json["network"]
        assert changed["isolated"] is wanted
        assert reconciled_nic(host, server_id).isolated is wanted
    made = as_member.post(f"{V2}/networks", json={"network": {"name": "apart", "isolated": True}}).json["network"]
    assert made["isolated"] is True
    found = as_member.get(f"{V2}/networks?isolated=true").json["networks"]
    assert [network["id"] for network in found] == [made["id"]]
    [public] = as_member.get(f"{V2}/networks?name=public").json["networks"]
    assert as_member.put(f"{V2}/networks/{public['id']}", json={"network": {"isolated": True}}).status_code == 403


def test_allowed_address_pairs_reach_running_servers(as_member: Api, image: str, host: Host) -> None:
    network_id = make_network(as_member, "own")
    server_id, port = run_server(as_member, image, host, network_id)
    prefix = port["fixed_ips"][0]["ip_address"].rsplit(":", 4)[0]
    path, pairs = f"{V2}/ports/{port['id']}", [{"ip_address": f"{prefix}::7", "mac_address": MAC}]
    pairs += [{"ip_address": f"{prefix}::/64", "mac_address": port["mac_address"]}]
    asked = [pairs[0], {"ip_address": pairs[1]["ip_address"]}]
    answer = as_member.put(path, json={"port": {"allowed_address_pairs": asked}})
    assert answer.json["port"]["allowed_address_pairs"] == pairs
    known = [(mac, str(allowed)) for mac, allowed in reconciled_nic(host, server_id).allowed]
    assert known == [(MAC, f"{prefix}::7/128"), (port["mac_address"], f"{prefix}::/64")]
    assert as_member.put(path, json={"port": {"allowed_address_pairs": []}}).json["port"]["allowed_address_pairs"] == []
    assert reconciled_nic(host, server_id).allowed == ()


def test_only_the_network_owner_sets_allowed_address_pairs(
    as_member: Api, as_admin: Api, make_server: Callable[..., str], host: Host
) -> None:
    [port] = ports_of(as_member, make_server())
    path, address = f"{V2}/ports/{port['id']}", port["fixed_ips"][0]["ip_address"]
    body = {"port": {"allowed_address_pairs": [{"ip_address": f"{address.rsplit(':', 4)[0]}::7"}]}}
    assert as_member.put(path, json=body).status_code == 403
    assert as_admin.put(path, json=body).status_code == 200


def test_an_operator_maps_an_ipv4_address_to_a_server(
    as_member: Api, as_admin: Api, make_server: Callable[..., str], host: Host
) -> None:
    one, two = make_server(), make_server()
    paths = [f"{V2}/ports/{ports_of(as_member, server_id)[0]['id']}" for server_id in (one, two)]
    body = {"port": {"ipv4_address": "203.0.113.7"}}

    def access(server_id: str) -> Any:
        [shown] = [
            server
            for server in as_member.get("/compute/v2.1/servers/detail").json["servers"]
            if server["id"] == server_id
        ]
        assert as_member.get(f"/compute/v2.1/servers/{server_id}").json["server"]["accessIPv4"] == shown["accessIPv4"]
        return shown["accessIPv4"]

    assert access(one) == ""
    assert as_member.put(paths[0], json=body).status_code == 403
    assert as_admin.put(paths[0], json=body).json["port"]["ipv4_address"] == "203.0.113.7"
    assert access(one) == "203.0.113.7"
    found = [
        [server["id"] for server in as_admin.get(f"/compute/v2.1/servers?all_tenants=1&{query}").json["servers"]]
        for query in ("access_ip_v4=203.0.113.7", "ip=203.0.113.[0-9]$", "access_ip_v4=203.0.113.70")
    ]
    assert found == [[one], [one], []]
    assert as_member.get("/compute/v2.1/servers?ip=^203").json["servers"][0]["id"] == one
    assert str(reconciled_nic(host, one).ipv4_address) == "203.0.113.7"
    assert as_admin.put(paths[0], json=body).status_code == 200
    taken = as_admin.put(paths[1], json=body)
    assert (taken.status_code, "mapped to another port" in taken.text) == (409, True)
    assert as_admin.put(paths[0], json={"port": {"ipv4_address": ""}}).json["port"]["ipv4_address"] is None
    assert access(one) == ""
    assert reconciled_nic(host, one).ipv4_address is None
    assert as_admin.put(paths[1], json=body).status_code == 200


def test_a_network_without_a_gateway_has_addresses_and_no_router(as_member: Api, image: str, host: Host) -> None:
    network_id = make_network(as_member, "inside", subnet=False)
    body = {"subnet": {"network_id": network_id, "gateway_ip": None}}
    subnet = as_member.post(f"{V2}/subnets", json=body).json["subnet"]
    assert subnet["gateway_ip"] is None
    server_id, port = run_server(as_member, image, host, network_id)
    nic = reconciled_nic(host, server_id)
    assert nic.gateway is None
    assert str(nic.addresses[0].ip) == port["fixed_ips"][0]["ip_address"]
    path, first = f"{V2}/subnets/{subnet['id']}", subnet["cidr"].replace("/64", "1")
    assert as_member.put(path, json={"subnet": {"gateway_ip": first}}).status_code == 409
    as_member.delete(f"/compute/v2.1/servers/{server_id}")
    host.work()
    assert as_member.put(path, json={"subnet": {"gateway_ip": first}}).json["subnet"]["gateway_ip"] == first
    assert as_member.put(path, json={"subnet": {"gateway_ip": None}}).json["subnet"]["gateway_ip"] is None


def test_a_fixed_ip_on_another_projects_network_is_refused(as_member: Api, image: str, host: Host) -> None:
    server_id = create(as_member, image, "auto").json["server"]["id"]
    host.work()
    [port] = ports_of(as_member, server_id)
    chosen = f"{port['fixed_ips'][0]['ip_address'].rsplit(':', 4)[0]}::77"
    answer = create(as_member, image, [{"uuid": port["network_id"], "fixed_ip": chosen}])
    assert (answer.status_code, "may choose addresses" in answer.text) == (403, True)
    own = make_network(as_member, "own")
    port = run_server(as_member, image, host, own)[1]
    chosen = f"{port['fixed_ips'][0]['ip_address'].rsplit(':', 4)[0]}::77"
    assert create(as_member, image, [{"uuid": own, "fixed_ip": chosen}]).status_code == 202


def test_the_owner_of_a_resource_cannot_be_changed(as_member: Api, as_admin: Api) -> None:
    network_id = make_network(as_member, "own")
    subnet_id = as_member.get(f"{V2}/networks/{network_id}").json["network"]["subnets"][0]
    port = as_member.post(f"{V2}/ports", json={"port": {"network_id": network_id}}).json["port"]
    for actor in (as_member, as_admin):
        for name, key in (("network", network_id), ("subnet", subnet_id), ("port", port["id"])):
            for field in ("project_id", "tenant_id"):
                answer = actor.put(f"{V2}/{name}s/{key}", json={name: {field: port["project_id"]}})
                assert answer.status_code == 400
                assert f"Cannot update read-only attribute {field}" in answer.text


def test_host_routes_reach_running_servers(as_member: Api, image: str, host: Host) -> None:
    network_id = make_network(as_member, "own")
    server_id, _ = run_server(as_member, image, host, network_id)
    subnet_id = as_member.get(f"{V2}/networks/{network_id}").json["network"]["subnets"][0]
    gateway = as_member.get(f"{V2}/subnets/{subnet_id}").json["subnet"]["gateway_ip"]
    routes = [{"destination": "2001:db8:7::/48", "nexthop": gateway}]
    answer = as_member.put(f"{V2}/subnets/{subnet_id}", json={"subnet": {"host_routes": routes}})
    assert answer.status_code == 200, answer.text
    routes_on_host = reconciled_nic(host, server_id).routes
    assert [(str(destination), str(nexthop)) for destination, nexthop in routes_on_host] == [
        ("2001:db8:7::/48", gateway)
    ]


def test_server_lists_follow_changes_of_ports_and_names(as_member: Api, image: str, host: Host) -> None:
    network_id, other_id = make_network(as_member, "before"), make_network(as_member, "second")
    server_id, _ = run_server(as_member, image, host, network_id)

    def list_networks() -> set[str]:
        [server] = as_member.get("/compute/v2.1/servers/detail").json["servers"]
        return set(server["addresses"])

    assert list_networks() == {"before"}
    as_member.put(f"{V2}/networks/{network_id}", json={"network": {"name": "after"}})
    assert list_networks() == {"after"}
    port = as_member.post(f"{V2}/ports", json={"port": {"network_id": other_id}}).json["port"]
    for body in ({"port_id": port["id"]}, {"net_id": other_id}):
        interfaces = f"/compute/v2.1/servers/{server_id}/os-interface"
        attached = as_member.post(interfaces, json={"interfaceAttachment": body}).json["interfaceAttachment"]
        assert list_networks() == {"after", "second"}
        host.work()
        as_member.delete(f"{interfaces}/{attached['port_id']}")
        host.work()
        assert list_networks() == {"after"}
