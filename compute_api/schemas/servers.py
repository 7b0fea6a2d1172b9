"""Bodies about servers: wire names, microversions, and the way into the domain."""

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
from compute_api.servers.servers import NetworkRequest, NewServer

NO_VOLUMES = "Block Device Mapping is Invalid: there are no volumes in this cloud; only the image on a local disk."


class Interface(Body):
    """One of the networks of a create request."""

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
        """Raise BadRequest for what contradicts itself, as Nova does, which passes over the size of the image's local
        disk: that is the flavor's."""
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
    """A file that the guest writes at its first boot."""

    path: Annotated[str, Field(pattern=r"^[^\x00\r\n]*$")]
    contents: Base64


class SecurityGroup(Body):
    """A security group by name; there is only `default`."""

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
        """Into the domain. Raises BadRequest for what this cloud does not do."""
        asked = self.server
        if asked.trusted_image_certificates:
            raise errors.BadRequest("Image signature certificates are not checked by this cloud.")
        if asked.tags and len(set(asked.tags)) > 50:
            raise errors.BadRequest("The number of tags exceeded the per-server limit 50")
        for group in asked.security_groups or []:
            if group.name != "default":
                raise errors.BadRequest(f"Security group {group.name} not found for project.")
        low = asked.min_count or 1
        high = asked.max_count or low
        if low > high:
            raise errors.BadRequest("min_count must be <= max_count")
        zone, host = _zone_and_host(asked)
        hints = self.hints or self.old_hints or {}
        return NewServer(
            name=asked.name,
            flavor_id=asked.flavor_ref,
            image_id=_boot_image(asked),
            networks=_networks(asked),
            key_name=asked.key_name,
            metadata=asked.metadata,
            tags=tuple(asked.tags or ()),
            description=asked.description,
            hostname=asked.hostname,
            user_data=asked.user_data,
            files=tuple(file.model_dump() for file in asked.personality or ()),
            admin_pass=asked.admin_pass,
            disk_config=asked.disk_config,
            access_ipv4=asked.access_ipv4,
            access_ipv6=asked.access_ipv6,
            zone=zone,
            host=host,
            forced=bool((asked.availability_zone or "").partition(":")[2]),
            same_host=_server_ids(hints, "same_host"),
            different_host=_server_ids(hints, "different_host"),
            group_id=_group_hint(hints),
            ephemeral_gib=tuple(disk.volume_size for disk in _blank_disks(asked) if disk.guest_format != "swap"),
            swap_mib=tuple(disk.volume_size or 0 for disk in _blank_disks(asked) if disk.guest_format == "swap"),
            min_count=low,
            max_count=high,
        )


def _boot_image(asked: ServerFields) -> str:
    """The image's id, from imageRef (an id or, as old clients send, a URL) or the one local boot disk."""
    mapped = None
    for device in asked.block_device_mapping_v2 or []:
        device.check(asked.image_ref)
        if device.source_type == "blank" and device.destination_type in (None, "local"):
            continue
        local = device.source_type == "image" and device.destination_type in (None, "local")
        if not local or device.boot_index not in (0, None) or mapped:
            raise errors.BadRequest(NO_VOLUMES)
        mapped = device.uuid
    if any(device.tag for device in asked.block_device_mapping_v2 or []):
        raise errors.BadRequest("Block device tags are not yet supported.")
    if asked.block_device_mapping:
        raise errors.BadRequest(NO_VOLUMES)
    image = (asked.image_ref or "").rsplit("/", 1)[-1] or mapped
    if not image:
        raise errors.BadRequest("Block Device Mapping is Invalid: an image is needed to boot from.")
    if mapped and mapped != image:
        raise errors.BadRequest("Block Device Mapping is Invalid: Boot sequence for the instance is invalid.")
    return image


def _blank_disks(asked: ServerFields) -> list[BlockDevice]:
    """Blank local disks: ephemeral ones in GiB, swap in MiB, as Nova has it."""
    blank = [disk for disk in asked.block_device_mapping_v2 or [] if disk.source_type == "blank"]
    for disk in blank:
        if disk.guest_format not in (None, "ext4", "swap"):
            raise errors.BadRequest(
                f"Block Device Mapping is Invalid: guest_format {disk.guest_format}: only ext4 and swap are made."
            )
    if any(disk.boot_index not in (None, -1) for disk in blank):
        raise errors.BadRequest("Block Device Mapping is Invalid: Boot sequence for the instance is invalid.")
    return blank


def _networks(asked: ServerFields) -> Literal["auto", "none"] | tuple[NetworkRequest, ...]:
    if asked.networks is None:
        return "auto"
    if asked.networks == "auto" or asked.networks == "none":
        return asked.networks
    return tuple(network.request() for network in asked.networks if not isinstance(network, str))


def _zone_and_host(asked: ServerFields) -> tuple[str | None, str | None]:
    """Zone and host: `availability_zone` may be zone:host or zone:host:node, as admins write it."""
    zone, host, node = (*(asked.availability_zone or "").split(":"), "", "")[:3]
    return zone or None, host or node or asked.host or asked.hypervisor_hostname or None


def _server_ids(hints: dict[str, Any], name: str) -> tuple[str, ...]:
    """The servers that a hint names: one id or several. Raises BadRequest for what is none."""
    named = hints.get(name)
    if named is None:
        return ()
    try:
        return tuple(str(UUID(one)) for one in (named if isinstance(named, list) else [named]))
    except (ValueError, TypeError, AttributeError):
        raise errors.BadRequest(
            f"Invalid input for field/attribute {name}. Value: {named}. {named!r} is not a 'uuid'"
        ) from None


def _group_hint(hints: dict[str, Any]) -> str | None:
    """The server group of the hints. Other hints are for schedulers that are not here, and passed over as by Nova."""
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
    """What PUT /servers/{id} may change."""

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
    """The os-getConsoleOutput action; -1 or null is everything."""

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
