"""The five services behind one port and their path prefixes."""

from enum import StrEnum


class Service(StrEnum):
    """A service; the value is the first segment of its paths."""

    IDENTITY = "identity"
    IMAGE = "image"
    COMPUTE = "compute"
    NETWORK = "network"
    VOLUME = "volume"


CATALOG_TYPE = {
    Service.IDENTITY: "identity",
    Service.IMAGE: "image",
    Service.COMPUTE: "compute",
    Service.NETWORK: "network",
    Service.VOLUME: "block-storage",
}
"""Service types in the catalog and in access rules."""


def service_of(path: str) -> Service | None:
    """Return the service of a request path; None for other paths."""
    try:
        return Service(path[1:].partition("/")[0])
    except ValueError:
        return None
