"""DNS settings: zones of server names and their primary name server."""

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.core.errors import OperatorError
from app.core.settings import Settings

if TYPE_CHECKING:
    from app.dns.client import NameServer


def is_sync_enabled(settings: Settings) -> bool:
    """Whether `sixstack up` runs the DNS sync process."""
    return bool(settings.dns_zone and settings.dns_server and settings.dns_sync_seconds > 0)


def zone(settings: Settings) -> str:
    """Return the zone's absolute name. Raises OperatorError when it is not set."""
    if not settings.dns_zone:
        raise OperatorError("SIXSTACK_DNS_ZONE is not set: the zone of server names.")
    return _absolute(settings.dns_zone)


def reverse_zones(settings: Settings) -> list[str]:
    """Return the absolute names of the reverse zones."""
    return [_absolute(name) for name in settings.dns_reverse_zones.split(",") if name.strip()]


def name_server(settings: Settings) -> "NameServer":
    """Return a client of the name server, not connected yet. Raises OperatorError for invalid settings."""
    try:
        from app.dns.client import NameServer
    except ImportError:
        raise OperatorError("dnspython is missing: pip install 'sixstack[dns]'") from None
    return NameServer(*_address(settings), settings.dns_key_file)


def _absolute(name: str) -> str:
    return f"{name.strip().rstrip('.').lower()}."


def _address(settings: Settings) -> tuple[str, int]:
    """Parse ADDRESS or ADDRESS:PORT of the name server; an IPv6 address with a port is in brackets."""
    text = settings.dns_server.strip()
    parts = urlsplit(f"//[{text}]" if text.count(":") > 1 and "[" not in text else f"//{text}")
    try:
        return str(ip_address(parts.hostname or "")), parts.port or 53
    except ValueError:
        raise OperatorError("SIXSTACK_DNS_SERVER must be ADDRESS or ADDRESS:PORT of the primary name server.") from None
