"""Server system metadata (Nova: system_metadata): internal data of a server, by these keys.

resize      {"flavor", "flavor_id": the flavor restored by a revert, or just given up; "stopped": bool,
            "host": the source host of a cold migration; "given_back": reverted before the end}
migration   {"id": of the migration in progress; "to": the host with a claim for it}
rescue      {"image": reference of the rescue image}
shelved     {"image_id", "image": reference}
blank       {"ephemeral_gib": sizes, "swap_mib"}: blank disks requested in place of the flavor's
placing     {"host", "forced", "same_host", "different_host": hints; "refused": [[host, reason]]: failed builds}
root_image  reference of the root disk's base image, if it is not the server's own (after unshelve)
files       [{"path", "contents": base64}]: files that the guest writes at its first boot (personality)
nic_tags    {port id: device tag}
"""

from typing import Any

from compute_api.models import Server

RESIZE, RESCUE, SHELVED, ROOT_IMAGE, BLANK = "resize", "rescue", "shelved", "root_image", "blank"
PLACING, MIGRATION, NIC_TAGS, FILES = "placing", "migration", "nic_tags", "files"


def set_item(server: Server, key: str, value: Any) -> None:
    """Set an item."""
    server.aside = {**server.aside, key: value}


def pop(server: Server, key: str) -> Any:
    """Remove an item; returns its value, or None."""
    value = server.aside.get(key)
    if value is not None:
        server.aside = {name: other for name, other in server.aside.items() if name != key}
    return value


def tag_nic(server: Server, port_id: str, tag: str | None) -> None:
    """Set the tag of an interface; None removes it."""
    tags = {port: known for port, known in nic_tags(server).items() if port != port_id}
    if tag is not None:
        tags[port_id] = tag
    if tags != nic_tags(server):
        set_item(server, NIC_TAGS, tags)


def nic_tags(server: Server) -> dict[str, str]:
    """Return the tags of the server's interfaces, by port."""
    return dict(server.aside.get(NIC_TAGS, {}))


def image_ids(aside: dict[str, Any]) -> set[str]:
    """Return images other than the server's own that its disks are based on."""
    found = {aside[key]["image"]["id"] for key in (RESCUE, SHELVED) if key in aside}
    return found | ({aside[ROOT_IMAGE]["id"]} if ROOT_IMAGE in aside else set())
