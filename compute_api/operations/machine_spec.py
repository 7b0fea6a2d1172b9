"""Server → MachineSpec, the document from which a host builds a machine."""

from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

from sqlalchemy.orm import Session

from compute_api import system_metadata
from compute_api.flavors import extra_specs
from compute_api.models import Server
from hypervisor.api.spec import DiskSpec, ImageRef, InjectedFile, KeySpec, MachineSpec, NicSpec
from network_api.resources import ports


def machine_spec(session: Session, server: Server) -> MachineSpec:
    """Return the machine spec of the server's desired state."""
    flavor = server.flavor
    asked = extra_specs.hardware_options(flavor.get("extra_specs", {}), flavor["vcpus"])
    nics, tags = ports.list_nics(session, [server.id]).get(server.id, []), system_metadata.nic_tags(server)
    return MachineSpec(
        id=server.id,
        name=server.name,
        hostname=server.hostname,
        project_id=server.project_id,
        vcpus=flavor["vcpus"],
        memory_mib=flavor["ram"],
        disks=disks(server),
        nics=tuple(_nic(nic, asked, tags.get(nic.port_id)) for nic in nics),
        key=KeySpec.model_validate(server.key) if server.key else None,
        user_data=server.user_data,
        files=tuple(InjectedFile.model_validate(file) for file in (system_metadata.FILES.find(server) or ())),
        metadata=server.metadata_,
        availability_zone=server.availability_zone,
        admin_pass=server.admin_pass,
        launch_index=server.launch_index,
        generation=server.generation,
        topology=asked.topology,
        cpu_limits=asked.cpu,
        disk_limits=asked.disk,
    )


def disks(server: Server) -> tuple[DiskSpec, ...]:
    """Return the disks in the order in which the guest sees them. A rescue image comes first."""
    flavor = server.flavor
    image = ImageRef.model_validate(_root_image(server))
    if image.disk_format == "iso":
        own = [DiskSpec(size_gib=flavor["disk"]), DiskSpec(name="cdrom", image=image, cdrom=True)]
    else:
        own = [DiskSpec(size_gib=flavor["disk"], image=image)]
    blank = system_metadata.BLANK.find(server) or system_metadata.BlankDisks()
    for number, size in enumerate(blank.get("ephemeral_gib", [flavor["ephemeral"]])):
        if size:
            own.append(DiskSpec(name=f"ephemeral{number}", size_gib=size, filesystem="ext4"))
    if swap := blank.get("swap_mib", flavor["swap"]):
        own.append(DiskSpec(name="swap", size_mib=swap, filesystem="swap"))
    if rescue := system_metadata.RESCUE.find(server):
        own.insert(0, DiskSpec(name="rescue", image=ImageRef.model_validate(rescue["image"])))
    return tuple(own)


def _root_image(server: Server) -> dict[str, Any]:
    if shelved := system_metadata.SHELVED.find(server):
        return dict(shelved["image"])
    return dict(system_metadata.ROOT_IMAGE.find(server) or server.image["ref"])


def _nic(nic: ports.Nic, asked: extra_specs.HardwareOptions, tag: str | None) -> NicSpec:
    return NicSpec(
        port_id=nic.port_id,
        network_id=nic.network_id,
        vni=nic.vni,
        mac=nic.mac,
        mtu=nic.mtu,
        addresses=tuple(IPv6Interface(address) for address in nic.addresses),
        gateway=IPv6Address(nic.gateway) if nic.gateway else None,
        dns_servers=tuple(IPv6Address(server) for server in nic.dns_servers),
        allowed=tuple((mac, IPv6Network(address)) for mac, address in nic.allowed),
        ipv4_address=IPv4Address(nic.ipv4_address) if nic.ipv4_address else None,
        isolated=nic.isolated,
        prefix_by_user=nic.prefix_by_user,
        routes=tuple((IPv6Network(destination), IPv6Address(nexthop)) for destination, nexthop in nic.routes),
        tag=tag,
        inbound=asked.inbound,
        outbound=asked.outbound,
    )
