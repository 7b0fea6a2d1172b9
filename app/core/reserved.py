"""Prefixes of the operator, which users cannot choose for their networks."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from app.core.addresses import parse_ipv6_network
from app.core.errors import OperatorError
from app.core.settings import Settings


def reserved_prefixes(settings: Settings) -> tuple[IPv6Network, ...]:
    """Return `reserved_prefixes` and the /64 of each IPv6 address in the settings. Raises OperatorError."""
    words = (settings.peers, settings.dns_servers, settings.dns_forwarders, settings.migration_address)
    return _parse_prefixes(settings.reserved_prefixes, ",".join(words), settings.nat64_prefix)


@lru_cache(maxsize=8)
def _parse_prefixes(reserved: str, addresses: str, nat64: str) -> tuple[IPv6Network, ...]:
    try:
        named = [parse_ipv6_network(word) for word in (*_split_list(reserved), nat64)]
    except ValueError as error:
        raise OperatorError(f"SIXSTACK_RESERVED_PREFIXES: {error}.") from None
    return (*named, *(IPv6Network((int(address), 64), strict=False) for address in _parse_addresses(addresses)))


def _parse_addresses(text: str) -> list[IPv6Address]:
    found = []
    for word in _split_list(text):
        try:
            found.append(IPv6Address(word.partition("%")[0]))
        except ValueError:
            continue  # an IPv4 address or invalid text; each setting is validated where it is used
    return found


def _split_list(text: str) -> list[str]:
    return text.replace(",", " ").split()
