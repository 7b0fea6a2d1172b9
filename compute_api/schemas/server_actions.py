"""Request bodies of server actions (POST /servers/{id}/action), consoles and interfaces."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.core import errors
from app.web.bodies import Body, since, until
from compute_api.schemas.fields import (
    AccessV4,
    AccessV6,
    Address,
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
from compute_api.schemas.servers import PersonalityFile
from compute_api.servers.actions import Rebuild


class RebuildBody(Body):
    """rebuild."""

    image_ref: Annotated[str, Field(alias="imageRef", min_length=1)]
    name: Name | None = None
    admin_pass: Annotated[Text | None, Field(alias="adminPass")] = None
    metadata: Metadata | None = None
    preserve_ephemeral: Boolean = False
    disk_config: Annotated[DiskConfig | None, Field(alias="OS-DCF:diskConfig")] = None
    access_ipv4: Annotated[AccessV4 | None, Field(alias="accessIPv4")] = None
    access_ipv6: Annotated[AccessV6 | None, Field(alias="accessIPv6")] = None
    personality: Annotated[list[PersonalityFile] | None, until("2.56")] = None
    description: Annotated[Text | None, since("2.19")] = None
    key_name: Annotated[str | None, since("2.54"), Field(min_length=1, max_length=255)] = None
    user_data: Annotated[UserData | None, since("2.57")] = None
    trusted_image_certificates: Annotated[list[str] | None, since("2.63")] = None
    hostname: Annotated[HostName | None, since("2.90")] = None

    def rebuild(self) -> Rebuild:
        """Convert to the domain's value. Raises BadRequest for features that this cloud does not support."""
        if self.trusted_image_certificates:
            raise errors.BadRequest("Image signature certificates are not checked by this cloud.")
        given = self.model_fields_set
        nullable: dict[str, Any] = {name: getattr(self, name) for name in ("description", "user_data") if name in given}
        others = ("name", "disk_config", "access_ipv4", "access_ipv6", "hostname")
        changes = {name: value for name in others if (value := getattr(self, name)) is not None}
        return Rebuild(
            image_id=self.image_ref.rsplit("/", 1)[-1],
            admin_pass=self.admin_pass,
            metadata=self.metadata,
            files=tuple(file.model_dump() for file in self.personality or ()),
            key_name=self.key_name,
            has_key_name="key_name" in given,
            preserve_ephemeral=self.preserve_ephemeral,
            changes={**nullable, **changes},
        )


class Resize(Body):
    """resize."""

    flavor_ref: Annotated[str | int, Field(alias="flavorRef")]
    disk_config: Annotated[DiskConfig | None, Field(alias="OS-DCF:diskConfig")] = None


class CreateImage(Body):
    """createImage."""

    name: Name
    metadata: Metadata = {}


class CreateBackup(Body):
    """createBackup."""

    name: Name
    backup_type: Annotated[str, Field(min_length=1, max_length=255)]
    rotation: Annotated[Integer, Field(ge=0)]
    metadata: Metadata = {}


class Rescue(Body):
    """rescue."""

    admin_pass: Annotated[Text | None, Field(alias="adminPass")] = None
    rescue_image_ref: str | None = None


class Unshelve(Body):
    """unshelve; 2.77 added the zone, 2.91 the host."""

    availability_zone: Annotated[Name | None, since("2.77")] = None
    host: Annotated[Name | None, since("2.91")] = None


class ChangePassword(Body):
    """changePassword."""

    admin_pass: Annotated[Text, Field(alias="adminPass")]


class ResetState(Body):
    """os-resetState."""

    state: Literal["active", "error"]


class FixedIp(Body):
    """A requested address."""

    ip_address: Address


class InterfaceFields(Body):
    """The interface of POST /servers/{id}/os-interface."""

    net_id: str | None = None
    port_id: str | None = None
    fixed_ips: Annotated[list[FixedIp] | None, Field(min_length=1, max_length=1)] = None
    tag: Annotated[Tag | None, since("2.49")] = None


class AttachInterface(Body):
    """POST /servers/{id}/os-interface."""

    interface: Annotated[InterfaceFields, Field(alias="interfaceAttachment")] = InterfaceFields()


class ConsoleType(Body):
    """os-getVNCConsole, os-getSerialConsole and the other console actions below 2.6."""

    type: Annotated[str, Field(min_length=1, max_length=255)]


class RemoteConsoleFields(Body):
    """The console of POST /servers/{id}/remote-consoles."""

    protocol: Literal["vnc", "spice", "rdp", "serial", "mks"]
    type: Literal["novnc", "xvpvnc", "spice-html5", "rdp-html5", "serial", "webmks"]


class RemoteConsole(Body):
    """POST /servers/{id}/remote-consoles."""

    remote_console: RemoteConsoleFields


class SecurityGroup(Body):
    """addSecurityGroup, removeSecurityGroup."""

    name: Annotated[str, Field(min_length=1, max_length=255)]


class FloatingIp(Body):
    """addFloatingIp and removeFloatingIp."""

    address: Address
    fixed_address: Address | None = None


TargetHost = Annotated[str, Field(min_length=1, max_length=255)]


class Migrate(Body):
    """migrate."""

    host: Annotated[TargetHost | None, since("2.56")] = None


class MigrateLive(Body):
    """os-migrateLive. `block_migration`: whether disks are sent, which here they always are."""

    host: TargetHost | None
    block_migration: Boolean | Literal["auto"]
    disk_over_commit: Annotated[Boolean | None, until("2.24")] = None
    force: Annotated[Boolean, since("2.30"), until("2.67")] = False


class Evacuate(Body):
    """evacuate."""

    host: TargetHost | None = None
    admin_pass: Annotated[Text | None, Field(alias="adminPass")] = None
    on_shared_storage: Annotated[Boolean | None, Field(alias="onSharedStorage"), until("2.13")] = None
    force: Annotated[Boolean, since("2.29"), until("2.67")] = False
