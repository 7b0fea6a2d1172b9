"""Errors with Neutron's names and messages; `kind` is the `type` in the fault document."""

from app.core import errors


class NetworkNotFound(errors.NotFound):
    """The network does not exist or is not visible to the caller."""

    kind = "NetworkNotFound"

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} could not be found.")


class SubnetNotFound(errors.NotFound):
    """The subnet does not exist or is not visible to the caller."""

    kind = "SubnetNotFound"

    def __init__(self, subnet_id: str) -> None:
        super().__init__(f"Subnet {subnet_id} could not be found.")


class PortNotFound(errors.NotFound):
    """The port does not exist or is not visible to the caller."""

    kind = "PortNotFound"

    def __init__(self, port_id: str) -> None:
        super().__init__(f"Port {port_id} could not be found.")


class SubnetPoolNotFound(errors.NotFound):
    """The subnet pool does not exist or is not visible to the caller."""

    kind = "SubnetPoolNotFound"

    def __init__(self, pool_id: str) -> None:
        super().__init__(f"Subnet pool {pool_id} could not be found.")


class NetworkAmbiguous(errors.Conflict):
    """A server names no network and the project owns several."""

    kind = "NetworkAmbiguous"

    def __init__(self) -> None:
        super().__init__("Multiple possible networks found, use a Network ID to be more specific.")


class NetworkInUse(errors.Conflict):
    """The network has ports."""

    kind = "NetworkInUse"

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on network {network_id}. There are one or more ports still in use on the "
            "network."
        )


class NetworkShared(errors.Conflict):
    """Other projects have ports on the network."""

    kind = "InvalidSharedSetting"

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Unable to reconfigure sharing settings for network {network_id}. Multiple projects are using it."
        )


class NetworkRequiresSubnet(errors.BadRequest):
    """A server is created on a network without a subnet."""

    kind = "NetworkRequiresSubnet"

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} requires a subnet in order to boot instances on.")


class SubnetExists(errors.Conflict):
    """The network already has a subnet; a network has one /64 at most."""

    kind = "SubnetExists"

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Network {network_id} has a subnet already, and one /64 is enough for any network. Create another network "
            "for another subnet."
        )


class SubnetInUse(errors.Conflict):
    """Ports have addresses of the subnet."""

    kind = "SubnetInUse"

    def __init__(self, subnet_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on subnet {subnet_id}: One or more ports have an IP allocation from this "
            "subnet."
        )


class SubnetPoolInUse(errors.Conflict):
    """Subnets are allocated from the pool."""

    kind = "SubnetPoolInUse"

    def __init__(self, pool_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on subnet pool {pool_id}: One or more subnets have their prefix from it."
        )


class PortInUse(errors.Conflict):
    """The port is bound to a server."""

    kind = "PortInUse"

    def __init__(self, port_id: str, device_id: str) -> None:
        super().__init__(f"Port {port_id} is still in use by server {device_id}.")


class PortBound(errors.Conflict):
    """The MAC, address or state of a bound port cannot change."""

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
    """The address belongs to another port or to the gateway."""

    kind = "IpAddressAlreadyAllocated"

    def __init__(self, address: str, subnet_id: str) -> None:
        super().__init__(f"IP address {address} already allocated in subnet {subnet_id}.")


class Ipv4AddressInUse(errors.Conflict):
    """The IPv4 address is mapped to another port."""

    kind = "IpAddressAlreadyAllocated"

    def __init__(self, address: str) -> None:
        super().__init__(f"IPv4 address {address} is mapped to another port already.")


class RevisionMismatch(errors.PreconditionFailed):
    """The revision number in `If-Match` is not the current one."""

    kind = "RevisionNumberConstraintFailed"

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"Constrained to {expected}, but current revision is {current}")


class NoSegmentLeft(errors.Unavailable):
    """Every VNI of the range is used by a network."""

    kind = "NoNetworkAvailable"

    def __init__(self) -> None:
        super().__init__("Unable to create the network. No tenant network is available for allocation.")


class NoPrefixLeft(errors.Conflict):
    """Every /64 of the pool is used by a subnet."""

    kind = "SubnetAllocationError"

    def __init__(self) -> None:
        super().__init__("Failed to allocate subnet: Insufficient prefix space to allocate subnet size /64.")


class InvalidInput(errors.BadRequest):
    """The value of a field is invalid."""

    kind = "InvalidInput"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid input for operation: {reason}")


class OverQuota(errors.QuotaExceeded):
    """The project's quota is used up. Clients match on "Quota exceeded"."""

    kind = "OverQuota"

    def __init__(self, resource: str) -> None:
        super().__init__(f"Quota exceeded for resources: ['{resource}'].")
