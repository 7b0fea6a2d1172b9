"""Validation and formatting of the IPv6 addresses that hosts receive from the control plane.

`ipaddress` keeps a scope id, which is free text after `%`. Specs with a scope id are rejected, and addresses for radvd,
tayga, unbound and nft are formatted from their integer value, which prevents injection into configuration files.
"""

from ipaddress import IPv6Address, IPv6Network


def refuse_scope(value: IPv6Address | IPv6Network) -> None:
    """Raise ValueError for an address or prefix with a scope id."""
    address = value.network_address if isinstance(value, IPv6Network) else value
    if address.scope_id is not None:
        raise ValueError("an address of a guest has no scope id")


def check_unicast(address: IPv6Address) -> None:
    """Raise ValueError for a scope id and for multicast, loopback and unspecified addresses."""
    refuse_scope(address)
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise ValueError(f"{format_address(address)} is not a unicast address of a guest, gateway or name server")


def check_routable(address: IPv6Address) -> None:
    """Raise ValueError for an address that is not unicast (`check_unicast`) or is link-local."""
    check_unicast(address)
    if address.is_link_local:
        raise ValueError(f"{format_address(address)} is a link-local address")


def format_address(address: IPv6Address) -> str:
    """Format an address as hexadecimal digits and colons only."""
    return str(IPv6Address(int(address)))


def format_prefix(prefix: IPv6Network) -> str:
    """Format a prefix as hexadecimal digits, colons and the prefix length."""
    return f"{format_address(prefix.network_address)}/{prefix.prefixlen}"
