"""Server → MachineSpec: the document that a host runs a machine from."""

from ipaddress import IPv6Address, IPv6Interface

from sqlalchemy.orm import Session

from compute_api.models import Server
from hypervisor.machine import DiskSpec, ImageRef, KeySpec, MachineSpec, NicSpec
from network_api import ports


def machine_spec(session: Session, server: Server) -> MachineSpec:
    """Everything a host needs to know, as wanted now."""
    flavor = server.flavor
    image = ImageRef.model_validate(server.image["ref"])
    disks: tuple[DiskSpec, ...]
    if image.disk_format == "iso":
        disks = (DiskSpec(size_gib=flavor["disk"]), DiskSpec(name="cdrom", image=image, cdrom=True))
    else:
        disks = (DiskSpec(size_gib=flavor["disk"], image=image),)
    return MachineSpec(
        id=server.id,
        name=server.name,
        hostname=server.hostname,
        project_id=server.project_id,
        vcpus=flavor["vcpus"],
        memory_mib=flavor["ram"],
        disks=disks,
        nics=tuple(_nic(nic) for nic in ports.nics_of(session, [server.id]).get(server.id, [])),
        key=KeySpec.model_validate(server.key) if server.key else None,
        user_data=server.user_data,
        metadata=server.metadata_,
        availability_zone=server.availability_zone,
        admin_pass=server.admin_pass,
        launch_index=server.launch_index,
        generation=server.generation,
    )


def _nic(nic: ports.Nic) -> NicSpec:
    return NicSpec(
        port_id=nic.port_id,
        network_id=nic.network_id,
        vni=nic.vni,
        mac=nic.mac,
        mtu=nic.mtu,
        addresses=tuple(IPv6Interface(address) for address in nic.addresses),
        gateway=IPv6Address(nic.gateway) if nic.gateway else None,
        dns_servers=tuple(IPv6Address(server) for server in nic.dns_servers),
    )
