"""Content of the config drive."""

import base64
import io
import json
from ipaddress import IPv6Address, IPv6Interface

import pycdlib

from hypervisor.api.spec import InjectedFile, KeySpec, MachineSpec, NicSpec
from hypervisor.base.addresses import slaac_address
from hypervisor.guest_data.config_drive import config_drive

MAC = "02:00:f0:a9:c4:4e"
SLAAC = IPv6Interface("2a0a:e5c1:111:888:0:f0ff:fea9:c44e/64")
NIC = NicSpec(
    port_id="9fd63e5a-6b8f-4b5c-a3d1-000000000001",
    network_id="the-network",
    vni=888,
    mac=MAC,
    mtu=1430,
    addresses=(SLAAC,),
    gateway=IPv6Address("2a0a:e5c1:111:888::1"),
    dns_servers=(IPv6Address("2a0a:e5c1:111:888::53"),),
)
SPEC = MachineSpec(
    id="5f3c0d2e-0000-4000-8000-000000000001",
    name="Ünïcode name",
    hostname="unicode-name",
    project_id="the-project",
    vcpus=1,
    memory_mib=128,
    disks=(),
    nics=(NIC,),
    key=KeySpec(name="my key", type="ssh", data="ssh-ed25519 AAAA me"),
    user_data=base64.b64encode(b"#!/bin/sh\n\xff").decode(),
    metadata={"colour": "blue"},
)


def read(spec: MachineSpec, path: str) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(config_drive(spec, {})))
    try:
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, rr_path=path)
        other = io.BytesIO()
        iso.get_file_from_iso_fp(other, joliet_path=path)
        assert content.getvalue() == other.getvalue()
        return content.getvalue()
    finally:
        iso.close()


def names(spec: MachineSpec, directory: str) -> set[str]:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(config_drive(spec, {})))
    try:
        children = iso.list_children(rr_path=directory)
        return {child.rock_ridge.name().decode() for child in children if child.rock_ridge} - {"", ".", ".."}
    finally:
        iso.close()


def test_volume_label_is_config_2() -> None:
    assert config_drive(SPEC, {})[0x8000 + 40 : 0x8000 + 72].rstrip() == b"config-2"


def test_injected_files_are_named_in_meta_data() -> None:
    contents = base64.b64encode(b"hello\n\xff").decode()
    spec = SPEC.model_copy(update={"files": (InjectedFile(path="/etc/motd", contents=contents),)})
    document = json.loads(read(spec, "/openstack/latest/meta_data.json"))
    assert document["files"] == [{"content_path": "/content/0000", "path": "/etc/motd"}]
    assert read(spec, "/openstack/content/0000") == b"hello\n\xff"
    assert names(SPEC, "/openstack") == names(spec, "/openstack") - {"content"}


def test_meta_data_names_the_machine_and_its_key() -> None:
    document = json.loads(read(SPEC, "/openstack/latest/meta_data.json"))
    assert document["uuid"] == SPEC.id
    assert document["name"] == "Ünïcode name"
    assert document["hostname"] == "unicode-name"
    assert document["project_id"] == "the-project"
    assert document["meta"] == {"colour": "blue"}
    assert document["public_keys"] == {"my key": "ssh-ed25519 AAAA me"}
    assert document["keys"] == [{"name": "my key", "type": "ssh", "data": "ssh-ed25519 AAAA me"}]
    assert len(base64.b64decode(document["random_seed"])) == 512
    assert "admin_pass" not in document


def test_meta_data_without_a_key_has_no_key_fields() -> None:
    document = json.loads(read(SPEC.model_copy(update={"key": None}), "/openstack/latest/meta_data.json"))
    assert "public_keys" not in document
    assert "keys" not in document


def test_two_drives_seed_two_generators() -> None:
    first, second = (json.loads(read(SPEC, "/openstack/latest/meta_data.json"))["random_seed"] for _ in range(2))
    assert first != second


def test_user_data_is_stored_unchanged_or_omitted() -> None:
    assert read(SPEC, "/openstack/latest/user_data") == b"#!/bin/sh\n\xff"
    assert read(SPEC, "/ec2/latest/user-data") == b"#!/bin/sh\n\xff"
    bare = SPEC.model_copy(update={"user_data": None})
    assert "user_data" not in names(bare, "/openstack/latest")
    assert "user-data" not in names(bare, "/ec2/latest")


def test_all_versions_have_the_same_content() -> None:
    for version in ("2015-10-15", "2018-08-27", "latest"):
        assert json.loads(read(SPEC, f"/openstack/{version}/network_data.json"))["links"]
        assert read(SPEC, f"/openstack/{version}/vendor_data.json") == b"{}"


def test_an_address_the_guest_forms_itself_is_announced_as_slaac() -> None:
    document = json.loads(read(SPEC, "/openstack/latest/network_data.json"))
    (link,) = document["links"]
    assert (link["ethernet_mac_address"], link["mtu"], link["vif_id"]) == (MAC, 1430, NIC.port_id)
    (network,) = document["networks"]
    assert network["type"] == "ipv6_slaac"
    assert network["link"] == link["id"]
    assert not network.get("routes"), "cloud-init would add a second default route"
    assert document["services"] == [{"type": "dns", "address": "2a0a:e5c1:111:888::53"}]


def test_another_address_is_given_statically() -> None:
    nic = NIC.model_copy(update={"addresses": (IPv6Interface("2a0a:e5c1:111:888::42/64"),)})
    document = json.loads(read(SPEC.model_copy(update={"nics": (nic,)}), "/openstack/latest/network_data.json"))
    (network,) = document["networks"]
    assert (network["type"], network["ip_address"], network["netmask"]) == (
        "ipv6",
        "2a0a:e5c1:111:888::42",
        "ffff:ffff:ffff:ffff::",
    )


def test_the_slaac_address_is_prefix_and_eui64() -> None:
    assert slaac_address(IPv6Interface("2a0a:e5c1:111:888::/64"), MAC) == SLAAC.ip
