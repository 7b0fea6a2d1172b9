"""Field types of request bodies. Attributes with one supported value refuse others with the reason."""

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
    "Use ip_version 6 (--ip-version 6)."
)
ALWAYS_SECURED = "Servers can send from their own MAC and addresses only, on every port."
NO_SECURITY_GROUPS = "There are no security groups: nothing is filtered on the way to a server."
ONE_SEGMENT = "VNIs are allocated by the cloud: every network is one VXLAN segment."
NEVER_EXTERNAL = "There are no external networks: every network has public addresses, so no floating IPs are needed."
ALWAYS_SLAAC = "Servers configure their addresses by SLAAC from router advertisements."
NO_POOLS = "Addresses are the prefix and the EUI-64 of a server's MAC; they are not allocated from a range."
NO_QOS = "There are no QoS policies."
NO_ZONES = "A network is available on every host; it has no availability zone."
SERVER_BINDS = "A port is bound by creating a server with it or by attaching it to a server."


def must_be(*allowed: Any, why: str) -> BeforeValidator:
    """Return a validator that accepts these values and refuses others with the reason."""

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
    """Return a validator that accepts empty values only."""
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
"""An IPv4 address; "" is None, for command line clients."""


class OwnedBody(Body):
    """A body with an owner, `project_id` or `tenant_id`."""

    project_id: str | None = None
    tenant_id: str | None = None

    @property
    def owner(self) -> str | None:
        """The requested owner; None is the caller's project."""
        return self.project_id or self.tenant_id

    def changes(self, *names: str) -> dict[str, Any]:
        """Return the fields among `names` that the client sent. Raises BadRequest when it sent an owner."""
        for name in ("project_id", "tenant_id"):
            if name in self.model_fields_set:
                raise BadRequest(f"Cannot update read-only attribute {name}")
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}
