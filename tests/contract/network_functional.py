"""openstacksdk's functional tests of ports, subnets and address counts, with IPv6 in place of IPv4.

Not collected by our own pytest: test_network_suites.py runs it in a separate process, with the prefix in
SIXSTACK_TEST_PREFIX.
"""

import os
from ipaddress import IPv6Network

from openstack.tests.functional.network.v2 import test_network_ip_availability as availability
from openstack.tests.functional.network.v2 import test_port as port
from openstack.tests.functional.network.v2 import test_subnet as subnet

PREFIX = IPv6Network(os.environ["SIXSTACK_TEST_PREFIX"])


def free_64(number: int) -> IPv6Network:
    """A /64 of the operator's prefix that no other test uses."""
    return IPv6Network((int(PREFIX.network_address) + (number << 64), 64))


class TestPort(port.TestPort):
    IPV4 = 6
    CIDR = str(free_64(0xA1))


class TestNetworkIPAvailability(availability.TestNetworkIPAvailability):
    IPV4 = 6
    CIDR = str(free_64(0xA2))


class TestSubnet(subnet.TestSubnet):
    IPV4 = 6
    CIDR = str(free_64(0xA3))
    DNS_SERVERS = ["2001:db8::1", "2001:db8::2"]
    POOL: list[dict[str, str]] = []
    ROUTES: list[dict[str, str]] = []

    def test_get(self) -> None:
        found = self.user_cloud.network.get_subnet(self.SUB_ID)
        assert found.dns_nameservers == self.DNS_SERVERS
        assert found.cidr == self.CIDR
        assert found.gateway_ip == str(free_64(0xA3)[1])
        assert found.is_dhcp_enabled
