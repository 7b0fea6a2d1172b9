"""What the settings say of the DNS: the zones that servers get names in, and the name server that has them."""

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.core.errors import OperatorError
from app.core.settings import Settings

if TYPE_CHECKING:
    from app.dns.client import NameServer


def is_sync_enabled(settings: Settings) -> bool:
    """Whether `sixstack up` is to keep a name server's records."""
    return bool(settings.dns_zone and settings.dns_server and settings.dns_sync_seconds > 0)


def zone(settings: Settings) -> str:
    """The zone's absolute name. Raises OperatorError when none is set."""
    if not settings.dns_zone:
        raise OperatorError("SIXSTACK_DNS_ZONE is not set: the zone that servers get their names in.")
    return _absolute(settings.dns_zone)


def reverse_zones(settings: Settings) -> list[str]:
    """Absolute names."""
    return [_absolute(name) for name in settings.dns_reverse_zones.split(",") if name.strip()]


def name_server(settings: Settings) -> "NameServer":
    """Whoever has the zones; asks it nothing yet. Raises OperatorError for what an operator must change."""
    try:
        from app.dns.client import NameServer
    except ImportError:
        raise OperatorError("dnspython is missing: pip install 'sixstack[dns]'") from None
    return NameServer(*_address(settings), settings.dns_key_file)


def _absolute(name: str) -> str:
    return f"{name.strip().rstrip('.').lower()}."


def _address(settings: Settings) -> tuple[str, int]:
    """Address and port of the name server, from ADDRESS or ADDRESS:PORT, IPv6 ones with a port in brackets."""
    text = settings.dns_server.strip()
    parts = urlsplit(f"//[{text}]" if text.count(":") > 1 and "[" not in text else f"//{text}")
    try:
        return str(ip_address(parts.hostname or "")), parts.port or 53
    except ValueError:
        raise OperatorError("SIXSTACK_DNS_SERVER wants ADDRESS or ADDRESS:PORT of the zones' name server.") from None
