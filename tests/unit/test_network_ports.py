"""Domain functions of networks and ports that compute uses: create, bind, release, bootstrap."""

from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv6Interface, IPv6Network
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.core.caller import Caller
from app.core.errors import BadRequest, Forbidden, NotFound, OperatorError
from app.db.database import Base, Database
from network_api import quotas
from network_api.errors import (
    InvalidInput,
    IpAddressInUse,
    MacAddressInUse,
    NetworkAmbiguous,
    NoPrefixLeft,
    NoSegmentLeft,
    OverQuota,
    PortInUse,
)
from network_api.models import Network, NetworkQuota, SegmentRange, Subnet, SubnetPool
from network_api.prefixes import allocate_cidr, allocate_segment
from network_api.resources import networks, ports
from network_api.resources.bootstrap import bootstrap, operator_prefix

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEMBER = Caller(user_id="u", project_id="demo", roles=frozenset({"member", "reader"}))
OPERATOR = Caller(user_id="a", project_id="ops", roles=frozenset({"admin", "member", "reader"}))
OTHER = Caller(user_id="o", project_id="other", roles=frozenset({"member", "reader"}))
PREFIX = IPv6Network("2a0a:e5c1:111::/48")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    database = Database(f"sqlite:///{tmp_path / 'network.db'}")
    Base.metadata.create_all(database.writer)
    with database.transaction() as session:
        bootstrap_cloud(session)
        yield session
    database.dispose()


def bootstrap_cloud(session: Session, prefix: IPv6Network = PREFIX) -> None:
    bootstrap(session, NOW, admin_project_id="admin", prefix=prefix, vni_base=5000, mtu=1430)


def make_network(session: Session, project_id: str = "demo", *, subnet: bool = True) -> Network:
    vni, mtu = allocate_segment(session)
    network = Network(id=f"net-{vni}", project_id=project_id, vni=vni, mtu=mtu, created_at=NOW, updated_at=NOW)
    if subnet:
        cidr = allocate_cidr(session, session.query(SubnetPool).one())
        network.subnet = Subnet(
            id=f"sub-{vni}",
            project_id=project_id,
            cidr=str(cidr),
            gateway_ip=str(cidr[1]),
            created_at=NOW,
            updated_at=NOW,
        )
    session.add(network)
    session.flush()
    return network


def test_a_new_cloud_has_one_shared_network_on_the_first_64(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    assert (network.name, network.shared, network.vni, network.mtu) == ("public", True, 5000, 1430)
    assert network.subnet is not None
    assert (network.subnet.cidr, network.subnet.gateway_ip) == ("2a0a:e5c1:111::/64", "2a0a:e5c1:111::1")
    assert operator_prefix(session) == PREFIX


def test_bootstrap_is_idempotent_and_refuses_another_prefix(session: Session) -> None:
    before = networks.default_network(session, MEMBER).id
    bootstrap_cloud(session)
    assert networks.default_network(session, MEMBER).id == before
    assert session.query(Network).count() == 1
    with pytest.raises(OperatorError, match="2a0a:e5c1:111::/48"):
        bootstrap_cloud(session, IPv6Network("fd00::/48"))


def test_the_only_own_network_is_the_default_and_two_are_ambiguous(session: Session) -> None:
    own = make_network(session)
    make_network(session, subnet=False)
    assert networks.default_network(session, MEMBER) is own
    assert networks.default_network(session, OTHER).name == "public"
    make_network(session)
    with pytest.raises(NetworkAmbiguous):
        networks.default_network(session, MEMBER)


def test_another_projects_network_is_not_found(session: Session) -> None:
    own = make_network(session)
    assert networks.find(session, MEMBER, own.id) is own
    with pytest.raises(NotFound, match=f"Network {own.id} could not be found"):
        networks.find(session, OTHER, own.id)


def test_a_burst_of_ports_has_distinct_addresses_in_the_prefix(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    for index in range(200):
        ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, device_id=f"server-{index}"))
    nics = ports.list_nics(session, [f"server-{index}" for index in range(200)])
    addresses = {IPv6Interface(nic.addresses[0]) for found in nics.values() for nic in found}
    assert len(nics) == len(addresses) == 200
    assert {address.network for address in addresses} == {IPv6Network("2a0a:e5c1:111::/64")}


def test_nics_are_in_attachment_order(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    loose = ports.create(session, NOW, ports.NewPort(project_id="demo", network=network))
    made = [
        ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, device_id="s")) for _ in range(5)
    ]
    ports.bind(session, NOW, loose.id, MEMBER, device_id="s", host="h")
    nics = ports.list_nics(session, ["s", "none"])
    assert [nic.port_id for nic in nics["s"]] == [*(port.id for port in made), loose.id]
    assert "none" not in nics


def test_a_nic_has_network_and_subnet_attributes(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    port = ports.create(
        session, NOW, ports.NewPort(project_id="demo", network=network, device_id="s", mac="02:00:f0:a9:c4:4e")
    )
    nic = ports.list_nics(session, ["s"])["s"][0]
    assert (nic.port_id, nic.network_id, nic.network_name) == (port.id, network.id, "public")
    assert (nic.vni, nic.mtu, nic.mac) == (5000, 1430, "02:00:f0:a9:c4:4e")
    assert nic.addresses == ("2a0a:e5c1:111::f0ff:fea9:c44e/64",)
    assert nic.gateway == "2a0a:e5c1:111::1"


def test_a_mac_or_address_in_use_keeps_the_transaction_usable(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    port = ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, address="2a0a:e5c1:111::42"))
    with pytest.raises(IpAddressInUse):
        ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, address="2a0a:e5c1:111:0::42"))
    with pytest.raises(MacAddressInUse):
        ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, mac=port.mac_address.upper()))
    assert ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, address="2a0a:e5c1:111::43"))
    session.flush()


@pytest.mark.parametrize("address", ["2a0a:e5c1:112::1", "10.0.0.1", "nonsense", "2a0a:e5c1:111::"])
def test_an_address_outside_the_subnet_is_refused(session: Session, address: str) -> None:
    with pytest.raises(InvalidInput):
        ports.create(
            session,
            NOW,
            ports.NewPort(project_id="demo", network=networks.default_network(session, MEMBER), address=address),
        )


def test_only_the_owner_chooses_addresses_on_a_shared_network(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    chosen = {"network": network, "project_id": "demo", "address": "2a0a:e5c1:111::5"}
    with pytest.raises(Forbidden):
        ports.create(session, NOW, ports.NewPort(**chosen), chooser=MEMBER)
    assert ports.create(session, NOW, ports.NewPort(**chosen), chooser=OPERATOR)
    assert ports.create(session, NOW, ports.NewPort(network=network, project_id="demo"), chooser=MEMBER)


def test_the_gateway_address_is_in_use(session: Session) -> None:
    with pytest.raises(IpAddressInUse):
        ports.create(
            session,
            NOW,
            ports.NewPort(
                project_id="demo", network=networks.default_network(session, MEMBER), address="2a0a:e5c1:111::1"
            ),
        )


def test_a_port_is_bound_once_and_by_its_project_only(session: Session) -> None:
    port = ports.create(
        session, NOW, ports.NewPort(project_id="demo", network=networks.default_network(session, MEMBER))
    )
    session.flush()
    with pytest.raises(NotFound):
        ports.bind(session, NOW, port.id, OTHER, device_id="s", host=None)
    bound = ports.bind(session, NOW, port.id, MEMBER, device_id="s", host="h")
    assert (bound.device_id, bound.binding_host) == ("s", "h")
    with pytest.raises(PortInUse):
        ports.bind(session, NOW, port.id, MEMBER, device_id="t", host="h")


def test_a_port_without_an_address_cannot_be_bound(session: Session) -> None:
    port = ports.create(session, NOW, ports.NewPort(project_id="demo", network=make_network(session, subnet=False)))
    session.flush()
    with pytest.raises(BadRequest, match="FixedIP"):
        ports.bind(session, NOW, port.id, MEMBER, device_id="s", host=None)


def test_release_deletes_created_ports_and_unbinds_others(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    given = ports.create(session, NOW, ports.NewPort(project_id="demo", network=network))
    made = ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, device_id="s"))
    other = ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, device_id="t"))
    ports.bind(session, NOW, given.id, MEMBER, device_id="s", host="h")
    ports.set_status(session, "s", True)
    ports.release(session, NOW, "s")
    made_id, given_id, other_id = made.id, given.id, other.id
    session.expire_all()
    kept = ports.find(session, MEMBER, given_id)
    assert (kept.device_id, kept.status, kept.binding_host) == ("", "DOWN", None)
    with pytest.raises(NotFound):
        ports.find(session, MEMBER, made_id)
    assert ports.find(session, MEMBER, other_id).device_id == "t"


def test_port_status_follows_the_server(session: Session) -> None:
    network = networks.default_network(session, MEMBER)
    ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, device_id="s"))
    seen = [ports.list_nics(session, ["s"])["s"][0].status]
    for active in (True, False, True):
        ports.set_status(session, "s", active)
        seen.append(ports.list_nics(session, ["s"])["s"][0].status)
    assert seen == ["BUILD", "ACTIVE", "DOWN", "ACTIVE"]


def test_the_port_quota_holds_within_a_transaction(session: Session) -> None:
    session.add(NetworkQuota(project_id="demo", port=3))
    network = networks.default_network(session, MEMBER)
    for _ in range(3):
        ports.create(session, NOW, ports.NewPort(project_id="demo", network=network))
    with pytest.raises(OverQuota, match="Quota exceeded"):
        ports.create(session, NOW, ports.NewPort(project_id="demo", network=network))
    session.flush()
    assert quotas.count_used(session, "demo", "port") == 3
    assert ports.create(session, NOW, ports.NewPort(project_id="other", network=network))


def test_prefixes_and_vnis_are_allocated_round_robin(session: Session) -> None:
    pool = session.query(SubnetPool).one()
    pool.prefixes = ["2a0a:e5c1:111::/63"]
    segments = session.query(SegmentRange).one()
    segments.last_vni = segments.first_vni + 1
    second = make_network(session)
    assert second.subnet is not None
    assert (second.vni, second.subnet.cidr) == (5001, "2a0a:e5c1:111:1::/64")
    with pytest.raises(NoPrefixLeft):
        allocate_cidr(session, pool)
    with pytest.raises(NoSegmentLeft):
        allocate_segment(session)
    session.delete(second)
    session.flush()
    assert allocate_segment(session)[0] == 5001
    assert str(allocate_cidr(session, pool)) == "2a0a:e5c1:111:1::/64"
