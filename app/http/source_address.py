"""The address that a request came from, seen through reverse proxies that the operator trusts."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from flask import request

from app.web.context import settings


def source_address() -> str:
    """The client's address; empty when it is not known.

    `X-Forwarded-For` is read from its end, where the nearest proxy writes, for as long as the address before is one of
    `trusted_proxies`. Clients may write anything into the rest of it.
    """
    trusted = settings().proxies
    found = _address(request.environ.get("REMOTE_ADDR", ""))
    hops = request.headers.get("X-Forwarded-For", "").split(",") if trusted else []
    while hops and found is not None and any(found in network for network in trusted):
        before = _address(hops.pop())
        if before is None:
            break
        found = before
    return "" if found is None else str(found)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, IPv4 as itself where it came through an IPv6 socket."""
    try:
        found = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
