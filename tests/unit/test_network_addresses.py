"""MAC addresses and EUI-64 addresses."""

from ipaddress import IPv6Network

import pytest

from network_api.addresses import eui64, normalize_mac, random_mac
from network_api.errors import InvalidInput


def test_an_address_is_prefix_and_eui64_of_the_mac() -> None:
    address = eui64(IPv6Network("2a0a:e5c1:111:888::/64"), "02:00:f0:a9:c4:4e")
    assert str(address) == "2a0a:e5c1:111:888:0:f0ff:fea9:c44e"


def test_random_macs_are_unicast_and_locally_administered() -> None:
    macs = {random_mac() for _ in range(100)}
    assert len(macs) == 100
    assert all(normalize_mac(mac) == mac and mac.startswith("02:") for mac in macs)


def test_macs_are_normalized() -> None:
    assert normalize_mac("02-AB-00-00-00-01") == "02:ab:00:00:00:01"


@pytest.mark.parametrize("mac", ["", "02:00", "zz:00:00:00:00:00", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_other_text_than_a_unicast_mac_is_refused(mac: str) -> None:
    with pytest.raises(InvalidInput):
        normalize_mac(mac)
