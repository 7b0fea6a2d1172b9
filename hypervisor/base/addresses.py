"""Addresses that hosts and guests derive alike: stateless autoconfiguration (RFC 4862)."""

from ipaddress import IPv6Address, IPv6Interface


def slaac_address(within: IPv6Interface, mac: str) -> IPv6Address:
    """The address a guest with this MAC forms in the /64 that `within` lies in (EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return within.network.network_address + int.from_bytes(identifier, "big")
