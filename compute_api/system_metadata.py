"""Server system metadata (Nova: system_metadata): typed internal data of a server that users do not see.

Each item has a key, which fixes its type and its name in the JSON column `Server.system_metadata`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from compute_api.models import Server

Value = TypeVar("Value")

ImageReference = dict[str, Any]
"""The JSON form of `hypervisor.api.spec.ImageRef`."""


class Resize(TypedDict, total=False):
    """A resize or cold migration until it is confirmed or reverted."""

    flavor: dict[str, Any]
    """The flavor that a revert restores, or that a revert in progress gives up."""
    flavor_id: str
    stopped: bool
    host: str
    """The source host of a cold migration, or the host that a revert leaves."""
    given_back: bool
    """The old flavor was restored before the migration ended."""


class MigrationClaim(TypedDict):
    """The migration in progress and the destination host, which has a claim for the server."""

    id: int
    to: str


class Rescue(TypedDict):
    """The image that the server is rescued from."""

    image: ImageReference


class Shelved(TypedDict):
    """The image that a shelved server is kept as."""

    image_id: str
    image: ImageReference


class BlankDisks(TypedDict, total=False):
    """Sizes of blank disks requested in place of the flavor's."""

    ephemeral_gib: list[int]
    swap_mib: int


class SchedulingHints(TypedDict, total=False):
    """Hints of the create request. `refused` are (host, reason) pairs of failed builds."""

    host: str
    forced: bool
    same_host: list[str]
    different_host: list[str]
    refused: list[list[str]]


@dataclass(frozen=True)
class Key(Generic[Value]):
    """The key of an item, with the item's type."""

    name: str

    def find(self, server: Server) -> Value | None:
        """Return the item, or None when it is not set."""
        value: Value | None = server.system_metadata.get(self.name)
        return value

    def get(self, server: Server) -> Value:
        """Return the item. Raises KeyError when it is not set."""
        value: Value = server.system_metadata[self.name]
        return value

    def set(self, server: Server, value: Value) -> None:
        """Set the item."""
        server.system_metadata = {**server.system_metadata, self.name: value}

    def pop(self, server: Server) -> Value | None:
        """Remove the item; returns its value, or None when it was not set."""
        value = self.find(server)
        if value is not None:
            server.system_metadata = {
                name: other for name, other in server.system_metadata.items() if name != self.name
            }
        return value


RESIZE = Key[Resize]("resize")
MIGRATION = Key[MigrationClaim]("migration")
RESCUE = Key[Rescue]("rescue")
SHELVED = Key[Shelved]("shelved")
ROOT_IMAGE = Key[ImageReference]("root_image")
"""The root disk's base image, where it is not the server's own image (after unshelve)."""
BLANK = Key[BlankDisks]("blank")
PLACING = Key[SchedulingHints]("placing")
FILES = Key[list[Any]]("files")
"""Files that the guest writes at its first boot (personality): {"path", "contents": base64}."""
NIC_TAGS = Key[dict[str, str]]("nic_tags")
"""Device tags by port id."""


def tag_nic(server: Server, port_id: str, tag: str | None) -> None:
    """Set the tag of an interface; None removes it."""
    tags = {port: known for port, known in nic_tags(server).items() if port != port_id}
    if tag is not None:
        tags[port_id] = tag
    if tags != nic_tags(server):
        NIC_TAGS.set(server, tags)


def nic_tags(server: Server) -> dict[str, str]:
    """Return the tags of the server's interfaces, by port."""
    return dict(NIC_TAGS.find(server) or {})


def image_ids(items: Mapping[str, Any]) -> set[str]:
    """Return images other than the server's own that its disks are based on. `items` is `Server.system_metadata`."""
    found = {items[key]["image"]["id"] for key in (RESCUE.name, SHELVED.name) if key in items}
    return found | ({items[ROOT_IMAGE.name]["id"]} if ROOT_IMAGE.name in items else set())
