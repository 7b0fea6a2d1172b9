"""IPv6 addresses as hosts accept them from the control plane, and their text for configuration files and rules.

`ipaddress` keeps a scope id, which is free text after `%`. Specs with one are refused, and all text for radvd, tayga,
unbound and nft is made from the number of an address, so that nothing but an address can get into a configuration.
"""

from ipaddress import IPv6Address, IPv6Network


def refuse_scope(value: IPv6Address | IPv6Network) -> None:
    """Raise ValueError for an address or prefix with a scope id."""
    address = value.network_address if isinstance(value, IPv6Network) else value
    if address.scope_id is not None:
        raise ValueError("an address of a guest has no scope id")


def check_unicast(address: IPv6Address) -> None:
    """Raise ValueError for what no guest, gateway or name server can have."""
    refuse_scope(address)
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise ValueError(f"{format_address(address)} is not a unicast address of a guest, gateway or name server")


def check_routable(address: IPv6Address) -> None:
    """The same, and for link-local addresses."""
    check_unicast(address)
    if address.is_link_local:
        raise ValueError(f"{format_address(address)} is a link-local address")


def format_address(address: IPv6Address) -> str:
    """The text of an address: digits and colons only."""
    return str(IPv6Address(int(address)))


def format_prefix(prefix: IPv6Network) -> str:
    """The text of a prefix: digits, colons and its length."""
    return f"{format_address(prefix.network_address)}/{prefix.prefixlen}"
