"""Functional tests of openstacksdk and IPv6 tests of tempest against the network API."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.identity_cloud import IdentityCloud, identity_cloud
from tests.contract.suites import run_sdk, run_tempest, tempest_environment


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityCloud]:
    """An API process without hosts: networks need hosts only for servers."""
    with identity_cloud(tmp_path_factory.mktemp("network")) as made:
        yield made


@pytest.fixture
def prefix(cloud: IdentityCloud) -> str:
    """The operator's /48."""
    chosen: str = json.loads((cloud.work / "state/installation.json").read_text())["prefix"]
    return chosen


SDK = (
    "openstack.tests.functional.network.v2.test_network",
    "openstack.tests.functional.network.v2.test_extension",
    "openstack.tests.functional.network.v2.test_quota",
    "openstack.tests.functional.network.v2.test_agent",
    "openstack.tests.functional.network.v2.test_availability_zone",
    "openstack.tests.functional.network.v2.test_service_provider",
    "tests.contract.network_functional",
)
SDK_EXCLUDED = {"TestExtension and test_find": "it looks for external-net: no network is external here"}


def test_openstacksdk_functional_tests_pass(cloud: IdentityCloud, prefix: str) -> None:
    image = cloud.work / "image"
    image.write_bytes(bytes(1 << 20))
    environment = {**cloud.environment, "SIXSTACK_TEST_PREFIX": prefix, "OPENSTACKSDK_IMAGE": "small"}
    create = ["image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", str(image), "small"]
    openstack = [str(Path(sys.executable).parent / "openstack"), "--os-cloud", "sixstack"]
    subprocess.run([*openstack, *create], env=environment, check=True, capture_output=True)
    told = run_sdk(SDK, SDK_EXCLUDED, {**environment, "OS_CLOUD": "devstack-admin"})
    assert re.search(r"\b(3[0-9]|4[0-9]) passed", told)


NETWORKS = "tempest.api.network.test_networks"
PORTS = "tempest.api.network.test_ports.PortsIpV6TestJSON"
PAIRS = "tempest.api.network.test_allowed_address_pair.AllowedAddressPairIpV6TestJSON"
TEMPEST = (
    f"{NETWORKS}.NetworksIpV6Test",
    f"{NETWORKS}.NetworksIpV6TestAttrs",
    f"{NETWORKS}.BulkNetworkOpsIpV6Test",
    "tempest.api.network.test_networks_negative.NetworksNegativeTestJSON",
    "tempest.api.network.test_extensions.ExtensionsTestJSON",
    "tempest.api.network.test_versions.NetworksApiDiscovery",
    PORTS,
    PAIRS,
)
NOT_OURS = "a port sends from addresses of its network only"
NO_POOLS = "addresses follow from MACs, not from allocation pools"
NO_ROUTES = "there are no host routes"
NO_DHCP = "there is no DHCPv6"
ONE_SUBNET = "a network has one subnet, and a port one address"
ONCE = "it has two subnets with the same prefix: addresses here are unique"
TEMPEST_EXCLUDED = {
    f"{PAIRS}.test_update_port_with_cidr_address_pair": NOT_OURS,
    f"{NETWORKS}.NetworksIpV6Test.test_create_delete_subnet_with_allocation_pools": NO_POOLS,
    f"{NETWORKS}.NetworksIpV6Test.test_create_delete_subnet_all_attributes": NO_ROUTES,
    f"{NETWORKS}.NetworksIpV6Test.test_create_delete_subnet_with_gw": ONCE,
    f"{NETWORKS}.NetworksIpV6Test.test_create_delete_subnet_with_gw_and_allocation_pools": NO_POOLS,
    f"{NETWORKS}.NetworksIpV6Test.test_create_delete_subnet_with_host_routes_and_dns_nameservers": NO_ROUTES,
    f"{NETWORKS}.NetworksIpV6Test.test_create_list_subnet_with_no_gw64_one_network": ONE_SUBNET,
    f"{NETWORKS}.NetworksIpV6Test.test_update_subnet_gw_dns_host_routes_dhcp": NO_POOLS,
    f"{NETWORKS}.NetworksIpV6TestAttrs.test_create_delete_stateless_subnet_with_ports": NO_DHCP,
    f"{NETWORKS}.NetworksIpV6TestAttrs.test_create_delete_subnet_with_v6_attributes_stateful": NO_DHCP,
    f"{NETWORKS}.NetworksIpV6TestAttrs.test_create_delete_subnet_with_v6_attributes_stateless": NO_DHCP,
    f"{PORTS}.test_create_port_in_allowed_allocation_pools": NO_POOLS,
    f"{PORTS}.test_create_update_port_with_second_ip": ONE_SUBNET,
    f"{PORTS}.test_port_list_filter_by_router_id": "there are no routers",
}


def test_tempest_ipv6_network_tests_pass(cloud: IdentityCloud, prefix: str) -> None:
    from network_api.routes.extensions import EXTENSIONS

    settings = {
        "service_available": {"neutron": "true"},
        "network": {
            "project_network_v6_cidr": prefix.replace("::/48", ":f000::/52"),
            "project_network_v6_mask_bits": "64",
        },
        "network-feature-enabled": {
            "ipv6": "true",
            "ipv6_subnet_attributes": "true",
            "api_extensions": ",".join(EXTENSIONS),
        },
    }
    environment = tempest_environment(cloud, settings)
    told = run_tempest(cloud, environment, ["--list", *TEMPEST])
    known = {line.partition("[")[0] for line in told.splitlines() if line.startswith("tempest.")}
    assert set(TEMPEST_EXCLUDED) < known
    chosen = sorted(known - set(TEMPEST_EXCLUDED))
    assert f"Ran {len(chosen)} tests" in run_tempest(cloud, environment, chosen)
