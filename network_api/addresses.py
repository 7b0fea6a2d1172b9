"""MAC addresses and SLAAC addresses (prefix + EUI-64), which are therefore known before the guest boots."""

import re
import secrets
from ipaddress import IPv6Address, IPv6Network

from network_api.errors import InvalidInput

MULTICAST_BIT = 0x01
LOCAL_BIT = 0x02


def random_mac() -> str:
    """Return a unicast, locally administered MAC: 02 and five random octets."""
    return "02:" + secrets.token_bytes(5).hex(":")


def normalize_mac(text: str) -> str:
    """Return the MAC in lower case with colons. Raises InvalidInput for text that is not a unicast MAC."""
    mac = text.lower().replace("-", ":")
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac) or mac == "00:00:00:00:00:00":
        raise InvalidInput(f"'{text}' is not a valid MAC address.")
    if int(mac[:2], 16) & MULTICAST_BIT:
        raise InvalidInput(f"'{text}' is a multicast MAC address, which no port can have.")
    return mac


def eui64(prefix: IPv6Network, mac: str) -> IPv6Address:
    """Return the SLAAC address of a MAC in a /64 (modified EUI-64, RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ LOCAL_BIT]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return prefix[0] + int.from_bytes(interface, "big")
