"""IPv6 address derivation by stateless address autoconfiguration (SLAAC, RFC 4862)."""

from ipaddress import IPv6Address, IPv6Interface


def slaac_address(within: IPv6Interface, mac: str) -> IPv6Address:
    """Return the EUI-64 address of a MAC in the /64 network of `within` (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return within.network.network_address + int.from_bytes(identifier, "big")
