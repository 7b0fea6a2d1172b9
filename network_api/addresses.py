"""MACs and the addresses made of them: prefix + EUI-64, so an address is known before its machine boots."""

import re
import secrets
from ipaddress import IPv6Address, IPv6Network

from network_api.errors import InvalidInput

MULTICAST_BIT = 0x01
LOCAL_BIT = 0x02


def random_mac() -> str:
    """A unicast, locally administered MAC: 02 and five random octets."""
    return "02:" + secrets.token_bytes(5).hex(":")


def normalize_mac(text: str) -> str:
    """The MAC in lower case with colons. Raises InvalidInput for what is no unicast MAC."""
    mac = text.lower().replace("-", ":")
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac) or mac == "00:00:00:00:00:00":
        raise InvalidInput(f"'{text}' is not a valid MAC address.")
    if int(mac[:2], 16) & MULTICAST_BIT:
        raise InvalidInput(f"'{text}' is a multicast MAC address, which no port can have.")
    return mac


def eui64(prefix: IPv6Network, mac: str) -> IPv6Address:
    """The address that SLAAC makes of a /64 and a MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ LOCAL_BIT]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return prefix[0] + int.from_bytes(interface, "big")
