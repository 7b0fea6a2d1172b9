"""Config drive: an ISO 9660 image labelled `config-2` with a guest's metadata, network configuration and user data."""

import base64
import io
import json
import secrets
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pycdlib

from hypervisor.api.spec import MachineSpec, NicSpec
from hypervisor.base.addresses import slaac_address
from hypervisor.qemu.command import nic_address

# cloud-init reads `latest`, other programs a dated version. All versions have the same content.
VERSIONS = ("2012-08-10", "2013-10-17", "2015-10-15", "2016-10-06", "2017-02-22", "2018-08-27", "2020-10-14", "latest")
EC2_VERSIONS = ("2009-04-04", "latest")


def config_drive(spec: MachineSpec, slots: Mapping[str, int]) -> bytes:
    """Build the image for a machine. `slots`: PCI slots of its interfaces, by port.

    The image contains secrets of the user; the caller must store it in a file that only the owner can read.
    """
    files = openstack_files(spec, slots)
    tree: dict[str, dict[str, bytes]] = {f"openstack/{version}": files for version in VERSIONS}
    if spec.files:
        contents = (base64.b64decode(file.contents) for file in spec.files)
        tree["openstack/content"] = {f"{number:04}": content for number, content in enumerate(contents)}
    for version in EC2_VERSIONS:
        ec2 = {"meta-data.json": _json(ec2_data(spec))}
        if "user_data" in files:
            ec2["user-data"] = files["user_data"]
        tree[f"ec2/{version}"] = ec2
    return _build_iso(tree)


def openstack_files(spec: MachineSpec, slots: Mapping[str, int]) -> dict[str, bytes]:
    """The files of one version directory, by name. `user_data` is present only if the server has user data."""
    files = {
        "meta_data.json": _json(meta_data(spec, slots)),
        "network_data.json": _json(network_data(spec.nics)),
        "vendor_data.json": b"{}",
        "vendor_data2.json": b"{}",
    }
    if spec.user_data:
        files["user_data"] = base64.b64decode(spec.user_data)
    return files


def meta_data(spec: MachineSpec, slots: Mapping[str, int]) -> dict[str, Any]:
    """meta_data.json in Nova's format. `slots`: PCI slots of the attached interfaces, by port."""
    document: dict[str, Any] = {
        "uuid": spec.id,
        "name": spec.name,
        "hostname": spec.hostname,
        "launch_index": spec.launch_index,
        "availability_zone": spec.availability_zone,
        "project_id": spec.project_id,
        "meta": spec.metadata,
        "random_seed": base64.b64encode(secrets.token_bytes(512)).decode(),
        "devices": [_device_entry(nic, slots.get(nic.port_id)) for nic in spec.nics if nic.tag is not None],
        "dedicated_cpus": [],
    }
    if spec.key is not None:
        document["public_keys"] = {spec.key.name: spec.key.data}
        document["keys"] = [spec.key.model_dump()]
    if spec.admin_pass is not None:
        document["admin_pass"] = spec.admin_pass
    if spec.files:
        document["files"] = [
            {"content_path": f"/content/{number:04}", "path": file.path} for number, file in enumerate(spec.files)
        ]
    return document


def _device_entry(nic: NicSpec, slot: int | None) -> dict[str, Any]:
    """The entry of a tagged interface in meta_data.json; without a PCI address while the interface is not attached."""
    address = {} if slot is None else {"address": nic_address(slot)}
    return {"type": "nic", "bus": "pci", **address, "mac": nic.mac, "tags": [nic.tag]}


def network_data(nics: tuple[NicSpec, ...]) -> dict[str, Any]:
    """network_data.json.

    EUI-64 addresses, which guests form by SLAAC, have the type `ipv6_slaac` without address and default route: with
    these cloud-init would configure a second default route in addition to the one from the router advertisement. Other
    addresses are static. The host routes of the subnet are listed with each address.
    """
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    services: list[dict[str, str]] = []
    for nic in nics:
        link = f"tap{nic.port_id[:11]}"
        links.append(
            {"id": link, "vif_id": nic.port_id, "type": "phy", "mtu": nic.mtu, "ethernet_mac_address": nic.mac}
        )
        dns = [{"type": "dns", "address": str(address)} for address in nic.dns_servers]
        services += [service for service in dns if service not in services]
        for address in nic.addresses:
            network: dict[str, Any] = {
                "id": f"network{len(networks)}",
                "link": link,
                "network_id": nic.network_id,
                "services": dns,
            }
            if address.ip == slaac_address(address, nic.mac):
                network |= {"type": "ipv6_slaac"}
            else:
                network |= {
                    "type": "ipv6",
                    "ip_address": str(address.ip),
                    "netmask": str(address.netmask),
                    "routes": [],
                }
            routes = [_route_entry(*route) for route in nic.routes if route[1] in address.network]
            if routes:
                network["routes"] = routes
            networks.append(network)
    return {"links": links, "networks": networks, "services": services}


def _route_entry(destination: IPv6Network, nexthop: IPv6Address) -> dict[str, str]:
    network, netmask = str(destination.network_address), str(destination.netmask)
    return {"network": network, "netmask": netmask, "gateway": str(nexthop)}


def ec2_data(spec: MachineSpec) -> dict[str, Any]:
    """EC2 metadata as a tree of dicts; leaves are the values."""
    document: dict[str, Any] = {
        "instance-id": spec.id,
        "hostname": spec.hostname,
        "local-hostname": spec.hostname,
        "ami-launch-index": spec.launch_index,
        "placement": {"availability-zone": spec.availability_zone},
    }
    if spec.key is not None:
        document["public-keys"] = {"0": {"_name": f"0={spec.key.name}", "openssh-key": spec.key.data}}
    return document


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _build_iso(tree: dict[str, dict[str, bytes]]) -> bytes:
    """Build the image from directory → file name → content. Rock Ridge and Joliet hold the names, ISO 9660 numbers."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", joliet=3, vol_ident="config-2")
    iso_paths: dict[str, str] = {}
    for path, files in tree.items():
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            if name not in iso_paths:
                iso_paths[name] = iso_paths.get("/".join(parts[: depth - 1]), "") + f"/D{len(iso_paths)}"
                iso.add_directory(iso_paths[name], rr_name=parts[depth - 1], joliet_path=f"/{name}")
        for number, (name, content) in enumerate(files.items()):
            iso.add_fp(
                io.BytesIO(content),
                len(content),
                f"{iso_paths[path]}/F{number}.;1",
                rr_name=name,
                joliet_path=f"/{path}/{name}",
            )
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()
