"""openstacksdk's functional tests of compute and of its cloud layer, against real guests.

tempest's required tests take longer than all of this and have a command of their own: `make tempest`.
"""

import os
import re

import pytest
import yaml

from tests.contract.conftest import Cloud
from tests.contract.suites import run_sdk

SDK = (
    "openstack.tests.functional.compute.v2.test_extension",
    "openstack.tests.functional.compute.v2.test_flavor",
    "openstack.tests.functional.compute.v2.test_hypervisor",
    "openstack.tests.functional.compute.v2.test_image",
    "openstack.tests.functional.compute.v2.test_keypair",
    "openstack.tests.functional.compute.v2.test_limits",
    "openstack.tests.functional.compute.v2.test_quota_set",
    "openstack.tests.functional.compute.v2.test_server",
    "openstack.tests.functional.compute.v2.test_service",
    "openstack.tests.functional.cloud.test_compute",
    "openstack.tests.functional.cloud.test_inventory",
)
SDK_EXCLUDED = {
    "TestServerAdmin": "it boots from a volume",
    "volume": "there are no volumes",
    "TestServer and (test_server or test_server_metadata or test_server_remote_console)": "it makes an IPv4 subnet",
    "TestExtension": "it wants an extension; there are only microversions",
    "test_create_and_delete_server_with_config_drive_none": "every server has a config drive",
    "TestRangeSearch": "it counts on devstack's flavors",
}


def environment(cloud: Cloud) -> dict[str, str]:
    """Environment of client processes: clouds.yaml with the cloud names of openstacksdk's tests."""
    clouds = yaml.safe_load((cloud.state / "clouds.yaml").read_text())["clouds"]
    names = {"devstack": "sixstack", "devstack-alt": "sixstack", "devstack-admin": "sixstack-admin"}
    clouds |= {name: clouds[ours] for name, ours in names.items()}
    admin = clouds["sixstack-admin"]
    auth = {key: value for key, value in admin["auth"].items() if not key.startswith("project_")}
    clouds["devstack-system-admin"] = {**admin, "auth": {**auth, "system_scope": "all"}}
    path = cloud.state.parent / "suite-clouds.yaml"
    path.write_text(yaml.safe_dump({"clouds": clouds}))
    own = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    sdk = {"OPENSTACKSDK_IMAGE": "tiny", "OPENSTACKSDK_FLAVOR": "tiny", "OS_TEST_TIMEOUT": "300"}
    return {**own, **sdk, "OS_CLIENT_CONFIG_FILE": str(path), "PYTHONWARNINGS": "ignore"}


@pytest.mark.timeout(900)
def test_openstacksdks_own_functional_tests_pass(cloud: Cloud) -> None:
    assert re.search(r"\b\d\d passed", run_sdk(SDK, SDK_EXCLUDED, environment(cloud)))
