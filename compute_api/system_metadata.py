"""What must be remembered of a server while it lives, is resized, rescued or shelved: the keys of `Server.aside`.

resize      {"flavor", "flavor_id": the one that the server would get back, or just gave back; "stopped": bool,
            "host": the other one that it may go back to, or comes back from; "given_back": before the end}
migration   {"id": of the migration under way; "to": the host where room is taken for it}
rescue      {"image": reference of the image that it is rescued from}
shelved     {"image_id", "image": reference}
blank       {"ephemeral_gib": sizes, "swap_mib"}: blank disks that were asked for in place of the flavor's
placing     {"host", "forced", "same_host", "different_host": what was asked for; "refused": [[host, reason]]}
root_image  reference of the image that the root disk stands on, where that is not the server's own (after unshelve)
files       [{"path", "contents": base64}]: files that the guest writes at its first boot (personality)
nic_tags    {port's id: the tag that the guest is told of that interface}
"""

from typing import Any

from compute_api.models import Server

RESIZE, RESCUE, SHELVED, ROOT_IMAGE, BLANK = "resize", "rescue", "shelved", "root_image", "blank"
PLACING, MIGRATION, NIC_TAGS, FILES = "placing", "migration", "nic_tags", "files"


def set_item(server: Server, key: str, value: Any) -> None:
    """Remember."""
    server.aside = {**server.aside, key: value}


def pop(server: Server, key: str) -> Any:
    """Forget; returns what was remembered, or None."""
    value = server.aside.get(key)
    if value is not None:
        server.aside = {name: other for name, other in server.aside.items() if name != key}
    return value


def tag_nic(server: Server, port_id: str, tag: str | None) -> None:
    """Remember the tag of an interface; None forgets it."""
    tags = {port: known for port, known in nic_tags(server).items() if port != port_id}
    if tag is not None:
        tags[port_id] = tag
    if tags != nic_tags(server):
        set_item(server, NIC_TAGS, tags)


def nic_tags(server: Server) -> dict[str, str]:
    """The tags of the server's interfaces, by port."""
    return dict(server.aside.get(NIC_TAGS, {}))


def image_ids(aside: dict[str, Any]) -> set[str]:
    """Images that the server's disks stand on, beside its own."""
    found = {aside[key]["image"]["id"] for key in (RESCUE, SHELVED) if key in aside}
    return found | ({aside[ROOT_IMAGE]["id"]} if ROOT_IMAGE in aside else set())
