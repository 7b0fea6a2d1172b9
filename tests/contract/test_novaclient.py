"""novaclient at the lowest and the highest microversion, against a real guest."""

from collections.abc import Iterator

import pytest
from novaclient import client, exceptions
from openstack.connection import Connection

from tests.contract.conftest import Cloud, Key, wait_until


def nova(connection: Connection, version: str) -> client.Client:
    """Return a novaclient with the token of an openstacksdk connection."""
    return client.Client(version, session=connection.session, service_type="compute", region_name=None)


@pytest.fixture
def member(cloud: Cloud) -> Iterator[Connection]:
    connection = cloud.connect()
    yield connection
    for server in connection.list_servers():
        connection.delete_server(server.id, wait=True)


def test_server_life_cycle(member: Connection, key: Key) -> None:
    new, old = nova(member, "2.96"), nova(member, "2.1")
    image = member.image.find_image("tiny", ignore_missing=False).id
    flavor = new.flavors.find(name="tiny")
    made = new.keypairs.create("nova-key", public_key=key.public)
    try:
        assert new.keypairs.get(made).name == "nova-key"
        server = new.servers.create(
            "nova", image, flavor, nics="auto", key_name="nova-key", meta={"a": "b"}, tags=["t"], description="words"
        )
        wait_until(lambda: new.servers.get(server.id).status == "ACTIVE")
        assert new.servers.get(server.id).flavor["original_name"] == "tiny"
        assert old.servers.get(server.id).flavor["id"] == flavor.id
        assert server.id in [one.id for one in old.servers.list(search_opts={"name": "^nova$"})]
        assert new.servers.tag_list(server) == ["t"]
        new.servers.set_meta(server, {"c": "d"})
        assert new.servers.get(server.id).metadata == {"a": "b", "c": "d"}
        assert [address["addr"] for address in new.servers.ips(server)["public"]]
        (interface,) = server.interface_list()
        assert interface.port_state == "ACTIVE"
        wait_until(lambda: "TINY:" in new.servers.get_console_output(server, length=50))

        new.servers.stop(server)
        wait_until(lambda: new.servers.get(server.id).status == "SHUTOFF")
        with pytest.raises(exceptions.Conflict, match="vm_state stopped"):
            new.servers.pause(server)
        new.servers.start(server)
        wait_until(lambda: new.servers.get(server.id).status == "ACTIVE")
        assert [one.action for one in new.instance_action.list(server)] == ["start", "stop", "create"]
        assert new.limits.get().to_dict()["absolute"]["totalInstancesUsed"] == 1
        new.servers.delete(server)
        wait_until(lambda: server.id not in [one.id for one in old.servers.list()])
        with pytest.raises(exceptions.NotFound):
            new.servers.get(server.id)
    finally:
        new.keypairs.delete("nova-key")


def test_operator_lists_hosts_and_services(cloud: Cloud) -> None:
    admin = cloud.connect("sixstack-admin")
    new = nova(admin, "2.96")
    (hypervisor,) = new.hypervisors.list(detailed=True)
    assert hypervisor.state == "up"
    (service,) = new.services.list()
    assert (service.binary, service.status) == ("nova-compute", "enabled")
    project = admin.current_project_id
    assert new.quotas.get(project).instances == new.quotas.defaults(project).instances
    assert [zone.zoneName for zone in new.availability_zones.list(detailed=False)] == ["nova"]
    flavor = new.flavors.create("nova-made", 128, 2, 1, flavorid="nova-made")
    try:
        flavor.set_keys({"hw:cpu_sockets": "2"})
        assert flavor.get_keys() == {"hw:cpu_sockets": "2"}
        with pytest.raises(exceptions.BadRequest, match="does not appear to be a valid extra spec"):
            flavor.set_keys({"hw:cpu_scokets": "2"})
    finally:
        flavor.delete()
