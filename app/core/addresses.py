"""IPv6 addresses and prefixes from requests and settings, parsed strictly.

`ipaddress` accepts a scope id after `%` (RFC 4007) that may contain blanks, braces and newlines. A scope is valid on
one host only, and its text would become part of hosts' configuration files, so scoped addresses are refused.
"""

from ipaddress import AddressValueError, IPv6Address, IPv6Network


def parse_ipv6_address(text: str) -> IPv6Address:
    """Parse an address. Raises ValueError for other text and for an address with a scope id."""
    _refuse_scope(text)
    return IPv6Address(text)


def parse_ipv6_network(text: str) -> IPv6Network:
    """Parse a prefix; host bits are cleared. Raises ValueError."""
    _refuse_scope(text)
    return IPv6Network(text, strict=False)


def parse_name_server(text: str) -> IPv6Address:
    """Parse the address of a name server. Raises ValueError for addresses that guests cannot reach."""
    address = parse_ipv6_address(text)
    if address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified:
        raise ValueError(f"'{text}' is not a valid nameserver.")
    return address


def _refuse_scope(text: str) -> None:
    if "%" in text:
        raise AddressValueError(f"{text!r} has a scope id, which is not allowed.")
