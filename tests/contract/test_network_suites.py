"""openstacksdk's own functional tests and tempest's, as far as they are about IPv6, against the network API."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.identity_cloud import IdentityCloud, identity_cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityCloud]:
    """An API without a host: networks need none until there are servers on them."""
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


def test_openstacksdks_own_functional_tests_pass(cloud: IdentityCloud, prefix: str) -> None:
    image = cloud.work / "image"
    image.write_bytes(bytes(1 << 20))
    environment = {**cloud.environment, "SIXSTACK_TEST_PREFIX": prefix, "OPENSTACKSDK_IMAGE": "small"}
    create = ["image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", str(image), "small"]
    openstack = [str(Path(sys.executable).parent / "openstack"), "--os-cloud", "sixstack"]
    subprocess.run([*openstack, *create], env=environment, check=True, capture_output=True)
    excluded = " and ".join(f"not ({name})" for name in SDK_EXCLUDED)
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-W", "ignore", "-k", excluded]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--pyargs", *SDK],
        env={**environment, "OS_CLOUD": "devstack-admin"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert re.search(r"\b(3[0-9]|4[0-9]) passed", ended.stdout.splitlines()[-1])


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
CONFIGURATION = """\
[DEFAULT]
log_file={work}/tempest.log
[oslo_concurrency]
lock_path={work}/lock
[auth]
use_dynamic_credentials=true
admin_username=admin
admin_password={password}
admin_project_name=admin
admin_domain_name=Default
create_isolated_networks=false
tempest_roles=member
[identity]
uri_v3={url}/identity/v3
auth_version=v3
region=RegionOne
[service_available]
neutron=true
cinder=false
swift=false
horizon=false
[network]
project_network_v6_cidr={upper}
project_network_v6_mask_bits=64
[network-feature-enabled]
ipv6=true
ipv6_subnet_attributes=true
api_extensions={extensions}
"""


def test_tempests_ipv6_network_tests_pass(cloud: IdentityCloud, prefix: str) -> None:
    from network_api.routes.extensions import EXTENSIONS

    password = cloud.clouds["sixstack-admin"]["auth"]["password"]
    upper = prefix.replace("::/48", ":f000::/52")
    written = CONFIGURATION.format(
        work=cloud.work, password=password, url=cloud.url, upper=upper, extensions=",".join(EXTENSIONS)
    )
    (cloud.work / "tempest.conf").write_text(written)
    environment = {**cloud.environment, "TEMPEST_CONFIG_DIR": str(cloud.work), "TEMPEST_CONFIG": "tempest.conf"}
    run = [sys.executable, "-W", "ignore", "-m", "testtools.run"]
    told = subprocess.run([*run, "--list", *TEMPEST], env=environment, capture_output=True, text=True, check=True)
    known = {line.partition("[")[0] for line in told.stdout.splitlines() if line.startswith("tempest.")}
    assert set(TEMPEST_EXCLUDED) < known
    chosen = sorted(known - set(TEMPEST_EXCLUDED))
    ended = subprocess.run([*run, *chosen], env=environment, cwd=cloud.work, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert f"Ran {len(chosen)} tests" in ended.stdout
