"""What bodies of the network API are made of. An attribute that can only have one value here says why."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from app.core.addresses import parse_ipv6_address, parse_ipv6_network, parse_name_server
from app.core.errors import BadRequest
from app.web.bodies import Body

Name = Annotated[str, StringConstraints(max_length=255)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Tags = Annotated[list[Tag], Field(max_length=50), AfterValidator(lambda tags: sorted(set(tags)))]

NO_IPV4 = (
    "Networks have IPv6 only: every server has a public address of its own, so no IPv4 subnet is needed. "
    "Ask for ip_version 6 (--ip-version 6)."
)
ALWAYS_SECURED = "Servers can send from their own MAC and addresses only, on every port."
NO_SECURITY_GROUPS = "There are no security groups: nothing is filtered on the way to a server."
ONE_SEGMENT = "The cloud numbers its segments itself: every network is a VXLAN of its own."
NEVER_EXTERNAL = "No network is external here: every network has public addresses, so no floating IPs are needed."
ALWAYS_SLAAC = "Servers make their addresses themselves (SLAAC), which router advertisements tell them."
NO_POOLS = "Addresses are the prefix and the EUI-64 of a server's MAC; they are not taken from a range."
NO_QOS = "There are no QoS policies."
NO_ZONES = "A network is on every host that needs it; it has no availability zone."
SERVER_BINDS = "A port is given to a server by creating the server with it."
NOT_SETTABLE = "It cannot be chosen here."


def must_be(*allowed: Any, why: str) -> BeforeValidator:
    """Accepts one of these values and refuses any other with the reason."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(why)
        return value

    return BeforeValidator(check)


def _ipv6_address(value: Any) -> IPv6Address:
    text = _string(value)
    if _is_ipv4(text):
        raise ValueError(NO_IPV4)
    return parse_ipv6_address(text)


def _nameserver(value: Any) -> IPv6Address:
    text = _string(value)
    if _is_ipv4(text):
        raise ValueError(NO_IPV4)
    return parse_name_server(text)


def _ipv6_network(value: Any) -> IPv6Network:
    text = _string(value)
    if _is_ipv4(text):
        raise ValueError(NO_IPV4)
    return parse_ipv6_network(text)


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Network(text, strict=False)
    except ValueError:
        return False
    return True


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("It must be a string.")
    return value


Address = Annotated[IPv6Address, BeforeValidator(_ipv6_address)]
Prefix = Annotated[IPv6Network, BeforeValidator(_ipv6_network)]
Nameserver = Annotated[IPv6Address, BeforeValidator(_nameserver)]
Nameservers = Annotated[list[Nameserver], Field(max_length=5)]


def must_be_empty(why: str) -> BeforeValidator:
    """Accepts an attribute only with nothing in it."""
    return must_be(None, "", [], {}, False, why=why)


Secured = Annotated[bool | None, must_be(True, None, why=ALWAYS_SECURED)]


def _ipv4_address(value: Any) -> IPv4Address | None:
    if value in (None, ""):
        return None
    try:
        return IPv4Address(_string(value))
    except ValueError:
        raise ValueError("It must be an IPv4 address.") from None


Ipv4Address = Annotated[IPv4Address | None, BeforeValidator(_ipv4_address)]
"""An IPv4 address; "" is none, which is what a command line can say."""


class OwnedBody(Body):
    """A body that may name its owner, by either of the two names."""

    project_id: str | None = None
    tenant_id: str | None = None

    @property
    def owner(self) -> str | None:
        """Whose it is to be; None for the caller's own."""
        return self.project_id or self.tenant_id

    def sent(self, *names: str) -> dict[str, Any]:
        """Those of these fields that the client sent, of a thing that is there. Raises BadRequest: it has its owner."""
        for name in ("project_id", "tenant_id"):
            if name in self.model_fields_set:
                raise BadRequest(f"Cannot update read-only attribute {name}")
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}
