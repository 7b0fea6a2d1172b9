"""Neutron's names for what can go wrong; `kind` is the `type` of the fault that clients see."""

from app.core import errors


class NetworkNotFound(errors.NotFound):
    """No such network, or not one the caller may see."""

    kind = "NetworkNotFound"

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} could not be found.")


class SubnetNotFound(errors.NotFound):
    """No such subnet, or not one the caller may see."""

    kind = "SubnetNotFound"

    def __init__(self, subnet_id: str) -> None:
        super().__init__(f"Subnet {subnet_id} could not be found.")


class PortNotFound(errors.NotFound):
    """No such port, or not one the caller may see."""

    kind = "PortNotFound"

    def __init__(self, port_id: str) -> None:
        super().__init__(f"Port {port_id} could not be found.")


class SubnetPoolNotFound(errors.NotFound):
    """No such subnet pool, or not one the caller may see."""

    kind = "SubnetPoolNotFound"

    def __init__(self, pool_id: str) -> None:
        super().__init__(f"Subnet pool {pool_id} could not be found.")


class NetworkAmbiguous(errors.Conflict):
    """`auto` when the project has several networks of its own."""

    kind = "NetworkAmbiguous"

    def __init__(self) -> None:
        super().__init__("Multiple possible networks found, use a Network ID to be more specific.")


class NetworkInUse(errors.Conflict):
    """Ports are on it."""

    kind = "NetworkInUse"

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on network {network_id}. There are one or more ports still in use on the "
            "network."
        )


class NetworkShared(errors.Conflict):
    """Other projects are on it."""

    kind = "InvalidSharedSetting"

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Unable to reconfigure sharing settings for network {network_id}. Multiple projects are using it."
        )


class NetworkRequiresSubnet(errors.BadRequest):
    """A server is to be on a network that has no addresses to give."""

    kind = "NetworkRequiresSubnet"

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} requires a subnet in order to boot instances on.")


class SubnetExists(errors.Conflict):
    """A network is one /64."""

    kind = "SubnetExists"

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Network {network_id} has a subnet already, and one /64 is enough for any network. Create another network "
            "for another subnet."
        )


class SubnetInUse(errors.Conflict):
    """Ports have addresses of it."""

    kind = "SubnetInUse"

    def __init__(self, subnet_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on subnet {subnet_id}: One or more ports have an IP allocation from this "
            "subnet."
        )


class SubnetPoolInUse(errors.Conflict):
    """Subnets have their /64 from it."""

    kind = "SubnetPoolInUse"

    def __init__(self, pool_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on subnet pool {pool_id}: One or more subnets have their prefix from it."
        )


class PortInUse(errors.Conflict):
    """A server has it already."""

    kind = "PortInUse"

    def __init__(self, port_id: str, device_id: str) -> None:
        super().__init__(f"Port {port_id} is still in use by server {device_id}.")


class PortBound(errors.Conflict):
    """A server's machine has been told of its MAC and address."""

    kind = "PortBound"

    def __init__(self, port_id: str, device_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on port {port_id}, port is already bound to server {device_id}: its MAC, "
            "address and state cannot be changed while a server uses it."
        )


class MacAddressInUse(errors.Conflict):
    """Another port has this MAC."""

    kind = "MacAddressInUse"

    def __init__(self, network_id: str, mac: str) -> None:
        super().__init__(f"Unable to complete operation for network {network_id}. The mac address {mac} is in use.")


class IpAddressInUse(errors.Conflict):
    """Another port has this address, or the gateway."""

    kind = "IpAddressAlreadyAllocated"

    def __init__(self, address: str, subnet_id: str) -> None:
        super().__init__(f"IP address {address} already allocated in subnet {subnet_id}.")


class Ipv4AddressInUse(errors.Conflict):
    """Another port has this IPv4 address in front of it."""

    kind = "IpAddressAlreadyAllocated"

    def __init__(self, address: str) -> None:
        super().__init__(f"IPv4 address {address} is mapped to another port already.")


class RevisionMismatch(errors.PreconditionFailed):
    """The resource has changed since the client read it."""

    kind = "RevisionNumberConstraintFailed"

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"Constrained to {expected}, but current revision is {current}")


class NoSegmentLeft(errors.Unavailable):
    """Every VNI of the range is a network."""

    kind = "NoNetworkAvailable"

    def __init__(self) -> None:
        super().__init__("Unable to create the network. No tenant network is available for allocation.")


class NoPrefixLeft(errors.Conflict):
    """Every /64 of the pool is a subnet."""

    kind = "SubnetAllocationError"

    def __init__(self) -> None:
        super().__init__("Failed to allocate subnet: Insufficient prefix space to allocate subnet size /64.")


class InvalidInput(errors.BadRequest):
    """A field is not what it should be."""

    kind = "InvalidInput"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid input for operation: {reason}")


class OverQuota(errors.QuotaExceeded):
    """The project has as many as it may. Clients match on "Quota exceeded"."""

    kind = "OverQuota"

    def __init__(self, resource: str) -> None:
        super().__init__(f"Quota exceeded for resources: ['{resource}'].")
