"""QEMU command line, a pure function of spec and open files."""

import json
from dataclasses import replace
from ipaddress import IPv6Interface

from hypervisor.api.spec import DiskSpec, MachineSpec, NicSpec
from hypervisor.qemu.command import OpenDisk, OpenFiles, OpenNic, qemu_command

NIC = NicSpec(
    port_id="9fd63e5a-6b8f-4b5c-a3d1-000000000001",
    network_id="n",
    vni=888,
    mac="02:00:f0:a9:c4:4e",
    mtu=1430,
    addresses=(IPv6Interface("2a0a:e5c1:111:888:0:f0ff:fea9:c44e/64"),),
)
SPEC = MachineSpec(
    id="5f3c0d2e-0000-4000-8000-000000000001",
    name="a name, with=commas",
    hostname="a-name",
    project_id="p",
    vcpus=3,
    memory_mib=128,
    disks=(DiskSpec(size_gib=1),),
    nics=(NIC,),
    admin_pass="do-not-show-me",
    user_data="c2VjcmV0",
)
FILES = OpenFiles(
    qmp=10,
    console=11,
    disks=(
        OpenDisk("root", 12, "qcow2", base=13, base_format="qcow2"),
        OpenDisk("config", 14, "raw", read_only=True),
    ),
    nics=(OpenNic(NIC, tap=15),),
)


def command(spec: MachineSpec = SPEC, files: OpenFiles = FILES, accelerator: str = "tcg") -> list[str]:
    return qemu_command(spec, files, accelerator=accelerator, label="abcd-")


def after(words: list[str], option: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def test_cpus_and_memory_match_the_spec() -> None:
    assert after(command(), "-m") == ["size=128M"]
    assert after(command(), "-smp") == ["cpus=3"]


def test_translated_code_has_a_bounded_cache() -> None:
    assert after(command(), "-accel") == ["tcg,tb-size=32"]
    assert after(command(SPEC.model_copy(update={"memory_mib": 2048})), "-accel") == ["tcg,tb-size=256"]


def test_kvm_shows_the_hosts_processor() -> None:
    words = command(accelerator="kvm")
    assert after(words, "-accel") == ["kvm"]
    assert after(words, "-cpu") == ["host"]


def test_every_layer_of_a_disk_has_an_explicit_format() -> None:
    root, config = map(json.loads, after(command(), "-blockdev"))
    assert root["driver"] == "qcow2"
    assert root["file"]["filename"] == "/dev/fdset/12"
    assert root["backing"]["driver"] == "qcow2"
    assert root["backing"]["read-only"] is True
    assert root["backing"]["backing"] is None, "a backing file named inside the image is never followed"
    assert config["driver"] == "raw"
    assert config["read-only"] is True


def test_guest_boots_only_from_its_root_disk() -> None:
    devices = [json.loads(word) for word in after(command(), "-device")]
    disks = {device["drive"]: device for device in devices if device["driver"] == "virtio-blk-pci"}
    assert disks["disk0"]["bootindex"] == 0
    assert "bootindex" not in disks["disk1"]


def test_a_cdrom_comes_after_the_disk() -> None:
    files = OpenFiles(
        qmp=10,
        console=11,
        disks=(OpenDisk("root", 12, "qcow2"), OpenDisk("root-cdrom", 13, "raw", read_only=True, cdrom=True)),
    )
    devices = [json.loads(word) for word in after(command(files=files), "-device")]
    (cdrom,) = [device for device in devices if device["driver"] == "ide-cd"]
    assert cdrom["bootindex"] == 1


def test_the_network_card_knows_mac_and_mtu_and_gets_an_open_tap() -> None:
    (card,) = [json.loads(word) for word in after(command(), "-device") if "virtio-net-pci" in word]
    assert card["mac"] == "02:00:f0:a9:c4:4e"
    assert card["host_mtu"] == 1430
    assert card["romfile"] == ""
    assert [json.loads(word) for word in after(command(), "-netdev")] == [{"type": "tap", "id": "net0", "fd": "15"}]


def test_qemu_may_neither_start_programs_nor_gain_rights() -> None:
    assert after(command(), "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


def test_command_line_contains_no_user_data() -> None:
    words = " ".join(command())
    assert "do-not-show-me" not in words
    assert "c2VjcmV0" not in words
    assert "commas" not in words


def test_every_descriptor_is_inherited() -> None:
    assert sorted(FILES.descriptors()) == [10, 11, 12, 13, 14, 15]


def test_machine_with_consoles_opens_no_port_and_keeps_its_log() -> None:
    words = qemu_command(SPEC, replace(FILES, serial=12), accelerator="tcg")
    assert words[words.index("-vnc") + 1] == "none"
    assert "socket,id=console,fd=12,server=on,wait=off,logfile=/dev/fdset/11,logappend=on" in words
    assert json.loads(words[-1]) == {"driver": "VGA", "id": "screen"}, (
        "the last device, so that the PCI slots of the others stay the same"
    )
    assert "-vnc" not in qemu_command(SPEC, FILES, accelerator="tcg")
