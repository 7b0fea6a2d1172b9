"""The five services behind one port: where each begins and how it says that something is wrong."""

from enum import StrEnum


class Service(StrEnum):
    """A service by the first segment of its paths; the value is that segment."""

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
"""The service type that the catalog and access rules use."""


def service_of(path: str) -> Service | None:
    """The service that a request path belongs to."""
    try:
        return Service(path[1:].partition("/")[0])
    except ValueError:
        return None
