"""Request bodies of servers: wire names, microversions and conversion to domain values."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from app.core import errors
from app.web.bodies import Body, since, until
from compute_api.schemas.fields import (
    AccessV4,
    AccessV6,
    Address,
    Base64,
    Boolean,
    DiskConfig,
    HostName,
    Integer,
    Metadata,
    Name,
    Tag,
    Text,
    UserData,
)
from compute_api.servers.creation import NetworkRequest, NewServer

NO_VOLUMES = "Block Device Mapping is Invalid: there are no volumes in this cloud; only the image on a local disk."


class Interface(Body):
    """One entry of `networks` in a create request."""

    uuid: str | None = None
    port: str | None = None
    fixed_ip: Address | None = None
    tag: Annotated[Tag | None, since("2.32")] = None

    def request(self) -> NetworkRequest:
        if not self.port and not self.uuid:
            raise errors.BadRequest("Bad networks format: a network uuid or a port is needed")
        return NetworkRequest(network_id=self.uuid, address=self.fixed_ip, port_id=self.port, tag=self.tag)


class BlockDevice(Body):
    """One entry of block_device_mapping_v2."""

    uuid: str | None = None
    source_type: Literal["image", "blank", "volume", "snapshot"]
    destination_type: Literal["local", "volume"] | None = None
    boot_index: Integer | None = None
    delete_on_termination: Boolean | None = None
    volume_size: Annotated[Integer, Field(ge=1, le=0x7FFFFFFF)] | None = None
    device_name: str | None = None
    disk_bus: str | None = None
    device_type: str | None = None
    guest_format: str | None = None
    no_device: str | None = None
    tag: Annotated[Tag | None, since("2.32")] = None
    volume_type: Annotated[str | None, since("2.67")] = None

    def check(self, image_ref: str | None) -> None:
        """Raise BadRequest for contradictory fields, as Nova does.

        The size of a local image disk is ignored: the flavor sets it.
        """
        if self.source_type == "blank" and self.uuid:
            raise errors.BadRequest("Block Device Mapping is Invalid: Invalid device UUID.")
        if self.source_type != "blank" and not self.uuid:
            raise errors.BadRequest("Block Device Mapping is Invalid: Missing device UUID.")
        if self.destination_type == "local":
            if self.source_type == "image" and not (image_ref and self.boot_index == 0):
                raise errors.BadRequest("Block Device Mapping is Invalid: Mapping image to local is not supported.")
            if self.volume_type:
                raise errors.BadRequest(
                    "Block Device Mapping is Invalid: Specifying a volume_type with destination_type=local is not "
                    "supported."
                )


class PersonalityFile(Body):
    """A file that the guest writes at first boot."""

    path: Annotated[str, Field(pattern=r"^[^\x00\r\n]*$")]
    contents: Base64


class SecurityGroup(Body):
    """A security group by name; only `default` exists."""

    name: str


class ServerFields(Body):
    """The server of POST /servers."""

    name: Name
    flavor_ref: Annotated[str, Field(alias="flavorRef")]
    image_ref: Annotated[str | None, Field(alias="imageRef")] = None
    admin_pass: Annotated[Text | None, Field(alias="adminPass")] = None
    metadata: Metadata = {}
    networks: Literal["auto", "none"] | list[Interface] | None = None
    disk_config: Annotated[DiskConfig, Field(alias="OS-DCF:diskConfig")] = "MANUAL"
    access_ipv4: Annotated[AccessV4, Field(alias="accessIPv4")] = ""
    access_ipv6: Annotated[AccessV6, Field(alias="accessIPv6")] = ""
    personality: Annotated[list[PersonalityFile] | None, until("2.56")] = None
    block_device_mapping: list[Any] | None = None
    block_device_mapping_v2: list[BlockDevice] | None = None
    config_drive: Boolean | None = None
    key_name: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    min_count: Annotated[Integer, Field(ge=1)] | None = None
    max_count: Annotated[Integer, Field(ge=1)] | None = None
    return_reservation_id: Boolean = False
    security_groups: list[SecurityGroup] | None = None
    user_data: UserData | None = None
    availability_zone: Name | None = None
    description: Annotated[Text | None, since("2.19")] = None
    tags: Annotated[list[Tag] | None, since("2.52")] = None
    trusted_image_certificates: Annotated[list[str] | None, since("2.63")] = None
    host: Annotated[str | None, since("2.74")] = None
    hypervisor_hostname: Annotated[str | None, since("2.74")] = None
    hostname: Annotated[HostName | None, since("2.90")] = None


class CreateServer(Body):
    """POST /servers."""

    server: ServerFields
    hints: Annotated[dict[str, Any] | None, Field(alias="os:scheduler_hints")] = None
    old_hints: Annotated[dict[str, Any] | None, Field(alias="OS-SCH-HNT:scheduler_hints")] = None

    def new_server(self) -> NewServer:
        """Convert to the domain's value. Raises BadRequest for features that this cloud does not support."""
        fields = self.server
        if fields.trusted_image_certificates:
            raise errors.BadRequest("Image signature certificates are not checked by this cloud.")
        if fields.tags and len(set(fields.tags)) > 50:
            raise errors.BadRequest("The number of tags exceeded the per-server limit 50")
        for group in fields.security_groups or []:
            if group.name != "default":
                raise errors.BadRequest(f"Security group {group.name} not found for project.")
        low = fields.min_count or 1
        high = fields.max_count or low
        if low > high:
            raise errors.BadRequest("min_count must be <= max_count")
        zone, host = _zone_and_host(fields)
        hints = self.hints or self.old_hints or {}
        return NewServer(
            name=fields.name,
            flavor_id=fields.flavor_ref,
            image_id=_boot_image(fields),
            networks=_networks(fields),
            key_name=fields.key_name,
            metadata=fields.metadata,
            tags=tuple(fields.tags or ()),
            description=fields.description,
            hostname=fields.hostname,
            user_data=fields.user_data,
            files=tuple(file.model_dump() for file in fields.personality or ()),
            admin_pass=fields.admin_pass,
            disk_config=fields.disk_config,
            access_ipv4=fields.access_ipv4,
            access_ipv6=fields.access_ipv6,
            zone=zone,
            host=host,
            forced=bool((fields.availability_zone or "").partition(":")[2]),
            same_host=_server_ids(hints, "same_host"),
            different_host=_server_ids(hints, "different_host"),
            group_id=_group_hint(hints),
            ephemeral_gib=tuple(disk.volume_size for disk in _blank_disks(fields) if disk.guest_format != "swap"),
            swap_mib=tuple(disk.volume_size or 0 for disk in _blank_disks(fields) if disk.guest_format == "swap"),
            min_count=low,
            max_count=high,
        )


def _boot_image(fields: ServerFields) -> str:
    """Return the image's id, from imageRef (an id, or a URL from old clients) or from the local boot disk."""
    mapped = None
    for device in fields.block_device_mapping_v2 or []:
        device.check(fields.image_ref)
        if device.source_type == "blank" and device.destination_type in (None, "local"):
            continue
        local = device.source_type == "image" and device.destination_type in (None, "local")
        if not local or device.boot_index not in (0, None) or mapped:
            raise errors.BadRequest(NO_VOLUMES)
        mapped = device.uuid
    if any(device.tag for device in fields.block_device_mapping_v2 or []):
        raise errors.BadRequest("Block device tags are not yet supported.")
    if fields.block_device_mapping:
        raise errors.BadRequest(NO_VOLUMES)
    image = (fields.image_ref or "").rsplit("/", 1)[-1] or mapped
    if not image:
        raise errors.BadRequest("Block Device Mapping is Invalid: an image is needed to boot from.")
    if mapped and mapped != image:
        raise errors.BadRequest("Block Device Mapping is Invalid: Boot sequence for the instance is invalid.")
    return image


def _blank_disks(fields: ServerFields) -> list[BlockDevice]:
    """Return the blank local disks: ephemeral ones in GiB, swap in MiB, as in Nova. Raises BadRequest."""
    blank = [disk for disk in fields.block_device_mapping_v2 or [] if disk.source_type == "blank"]
    for disk in blank:
        if disk.guest_format not in (None, "ext4", "swap"):
            raise errors.BadRequest(
                f"Block Device Mapping is Invalid: guest_format {disk.guest_format}: only ext4 and swap are made."
            )
    if any(disk.boot_index not in (None, -1) for disk in blank):
        raise errors.BadRequest("Block Device Mapping is Invalid: Boot sequence for the instance is invalid.")
    return blank


def _networks(fields: ServerFields) -> Literal["auto", "none"] | tuple[NetworkRequest, ...]:
    if fields.networks is None:
        return "auto"
    if fields.networks == "auto" or fields.networks == "none":
        return fields.networks
    return tuple(network.request() for network in fields.networks if not isinstance(network, str))


def _zone_and_host(fields: ServerFields) -> tuple[str | None, str | None]:
    """Return zone and host. Admins may set `availability_zone` to zone:host or zone:host:node."""
    zone, host, node = (*(fields.availability_zone or "").split(":"), "", "")[:3]
    return zone or None, host or node or fields.host or fields.hypervisor_hostname or None


def _server_ids(hints: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the server ids of a hint, a single id or a list. Raises BadRequest for invalid ids."""
    hint = hints.get(name)
    if hint is None:
        return ()
    try:
        return tuple(str(UUID(server_id)) for server_id in (hint if isinstance(hint, list) else [hint]))
    except (ValueError, TypeError, AttributeError):
        raise errors.BadRequest(
            f"Invalid input for field/attribute {name}. Value: {hint}. {hint!r} is not a 'uuid'"
        ) from None


def _group_hint(hints: dict[str, Any]) -> str | None:
    """Return the server group of the hints; unknown hints are ignored as in Nova. Raises BadRequest."""
    group = hints.get("group")
    if group is None:
        return None
    try:
        return str(UUID(group))
    except (ValueError, TypeError, AttributeError):
        raise errors.BadRequest(
            f"Invalid input for field/attribute group. Value: {group}. {group!r} is not a 'uuid'"
        ) from None


class UpdateFields(Body):
    """The server of PUT /servers/{id}."""

    name: Name | None = None
    disk_config: Annotated[DiskConfig | None, Field(alias="OS-DCF:diskConfig")] = None
    access_ipv4: Annotated[AccessV4 | None, Field(alias="accessIPv4")] = None
    access_ipv6: Annotated[AccessV6 | None, Field(alias="accessIPv6")] = None
    description: Annotated[Text | None, since("2.19")] = None
    hostname: Annotated[HostName | None, since("2.90")] = None

    @model_validator(mode="after")
    def _named(self) -> "UpdateFields":
        if "name" in self.model_fields_set and self.name is None:
            raise ValueError("None is not of type 'string'")
        return self


class UpdateServer(Body):
    """PUT /servers/{id}."""

    server: UpdateFields


class Reboot(Body):
    """The reboot action."""

    type: Literal["SOFT", "HARD", "soft", "hard", "Soft", "Hard"]


class ConsoleOutput(Body):
    """The os-getConsoleOutput action; -1 or null requests the whole log."""

    length: Annotated[Integer, Field(ge=-1)] | None = None


class Lock(Body):
    """The lock action."""

    locked_reason: Annotated[Text | None, since("2.73")] = None


class MetadataBody(Body):
    """POST and PUT of all metadata."""

    metadata: Metadata


class MetaBody(Body):
    """PUT of one metadata item."""

    meta: Metadata


class Tags(Body):
    """PUT of all tags."""

    tags: list[Tag]
