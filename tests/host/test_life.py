"""Actions on a running machine as seen by its guest: suspend, snapshot, resize, rebuild, rescue."""

import json
import threading
import time
import uuid
from ipaddress import IPv6Interface
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import DiskSpec, ImageRef, KeySpec, MachineSpec, MachineState, NicSpec
from hypervisor.base.addresses import slaac_address
from hypervisor.guest_data.metadata import MetadataService
from hypervisor.network.links import METADATA_ADDRESS
from tests.host.support import PREFIX, HostMaker, OneImage, image_ref, make_spec, ssh

ASK = rf"printf 'GET /openstack/latest/meta_data.json HTTP/1.0\r\n\r\n' | nc {METADATA_ADDRESS}%eth0 80"


def tiny_ref(path: Path) -> ImageRef:
    """Return a reference to the tiny image with the virtual size from its header."""
    return image_ref(path, "qcow2", int.from_bytes(path.read_bytes()[24:32], "big"))


def next_generation(spec: MachineSpec, **changes: object) -> MachineSpec:
    return spec.model_copy(update={"generation": spec.generation + 1, **changes})


def second_nic(first: NicSpec) -> NicSpec:
    mac = "02:00:f0:00:01:01"
    address = IPv6Interface((slaac_address(PREFIX, mac), 64))
    return first.model_copy(update={"port_id": str(uuid.uuid4()), "mac": mac, "addresses": (address,)})


def test_suspend_restores_memory_and_interfaces_are_hotplugged(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    def devices(told: str) -> dict[str, str]:
        return {one["mac"]: one["address"] for one in json.loads(told[told.index("{") :])["devices"]}

    def found(address: str) -> str:
        return ssh(spec, private, f"cat /sys/bus/pci/devices/{address}/virtio*/net/*/address").strip()

    private, public = ssh_key
    spec = make_spec(1, tiny_ref(tiny_image), key=public)
    spec = spec.model_copy(update={"nics": (spec.nics[0].model_copy(update={"tag": "first"}),)})
    host = make_host(OneImage(tiny_image))
    service = MetadataService(host.segments, host.paths, host.spec)
    service.start()
    host.ensure_running(spec)
    [(mac, address)] = devices(ssh(spec, private, "cat /run/config/openstack/latest/meta_data.json")).items()
    assert found(address) == mac
    boot = ssh(spec, private, "cat /proc/sys/kernel/random/boot_id; sleep 1000 >/dev/null 2>&1 &")
    counted = host.diagnostics(spec.id)
    assert counted.nics[0].tx_octets > 0
    assert counted.disks[0].read_bytes > 0
    assert counted.cpu_times[0] > 0

    wider = spec.model_copy(update={"nics": (*spec.nics, second_nic(spec.nics[0]))})
    host.ensure_nics(wider)
    host.ensure_nics(wider)
    deadline = time.monotonic() + 20
    while "02:00:f0:00:01:01" not in (links := ssh(spec, private, "ip link")):
        assert time.monotonic() < deadline, links
        time.sleep(0.2)
    told = devices(ssh(spec, private, ASK))
    assert {found(address): address for address in told.values()} == told
    assert len(told) == 2
    service.close()

    assert host.suspend(spec.id).state is MachineState.SHUTOFF
    assert host.suspend(spec.id).state is MachineState.SHUTOFF
    later = make_host(OneImage(tiny_image))
    assert later.ensure_running(wider).state is MachineState.RUNNING
    assert ssh(spec, private, "cat /proc/sys/kernel/random/boot_id") == boot
    assert "sleep 1000" in ssh(spec, private, "ps")
    assert "02:00:f0:00:01:01" in ssh(spec, private, "ip link")
    later.suspend(spec.id)
    later.ensure_running(wider)
    assert ssh(spec, private, "cat /proc/sys/kernel/random/boot_id") == boot, "and once more"

    later.ensure_nics(spec)
    deadline = time.monotonic() + 20
    while "02:00:f0:00:01:01" in (links := ssh(spec, private, "ip link")):
        assert time.monotonic() < deadline, links
        time.sleep(0.2)

    later.suspend(spec.id)
    later.ensure_stopped(spec.id, grace_seconds=0)
    later.ensure_running(spec)
    assert ssh(spec, private, "cat /proc/sys/kernel/random/boot_id") != boot, "a stop forgets the memory"
    later.remove(spec.id)


def test_a_live_snapshot_keeps_the_guest_running(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec], tmp_path: Path
) -> None:
    private, public = ssh_key
    spec = make_spec(1, tiny_ref(tiny_image), key=public)
    host = make_host(OneImage(tiny_image))
    host.ensure_running(spec)
    boot = ssh(spec, private, "echo before > /root/mark; sync; cat /proc/sys/kernel/random/boot_id")
    host.snapshot(spec, "one")
    taken = host.snapshot(spec, "one")
    assert ssh(spec, private, "echo after > /root/mark; sync; cat /proc/sys/kernel/random/boot_id") == boot
    moved = tmp_path / "snapshot.qcow2"
    moved.write_bytes(taken.path.read_bytes())
    host.discard_snapshot(spec.id, "one")
    host.ensure_stopped(spec.id, grace_seconds=20)
    cold = tmp_path / "cold.qcow2"
    cold.write_bytes(host.snapshot(spec, "two").path.read_bytes())
    host.discard_snapshot(spec.id, "two")
    host.remove(spec.id)

    for number, (path, expected) in enumerate(((moved, "before"), (cold, "after")), 2):
        copy = make_spec(number, image_ref(path, taken.disk_format, 1 << 30), key=public)
        other = make_host(OneImage(path))
        other.ensure_running(copy)
        assert ssh(copy, private, "cat /root/mark").strip() == expected
        other.remove(copy.id)


def test_a_resize_is_visible_in_the_guest_and_can_be_reverted(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    small = make_spec(1, tiny_ref(tiny_image), key=public, generation=1)
    host = make_host(OneImage(tiny_image))
    host.ensure_running(small)
    ssh(small, private, "echo old > /root/mark; sync")

    larger = (small.disks[0].model_copy(update={"size_gib": 2}), DiskSpec(name="swap", size_mib=16))
    large = next_generation(small, memory_mib=192, vcpus=2, disks=larger)
    host.resize(large, start=True, grace_seconds=20)
    assert sectors(large, private, "vda") == 2 << 21
    assert sectors(large, private, "vdb") == 16 << 11
    memory = int(ssh(large, private, "grep MemTotal /proc/meminfo").split()[1])
    assert memory > 128 << 10
    ssh(large, private, "echo new > /root/mark; sync")

    back = next_generation(large, memory_mib=128, vcpus=1, disks=small.disks)
    host.revert_resize(back, start=True)
    assert ssh(back, private, "cat /root/mark").strip() == "old"
    assert sectors(back, private, "vda") == 1 << 21
    assert int(ssh(back, private, "grep MemTotal /proc/meminfo").split()[1]) < 128 << 10

    again = next_generation(back, memory_mib=192, disks=larger)
    host.resize(again, start=True, grace_seconds=20)
    ssh(again, private, "echo newer > /root/mark; sync")
    host.confirm_resize(again.id)
    host.confirm_resize(again.id)
    host.revert_resize(next_generation(again), start=True)
    assert ssh(again, private, "cat /root/mark").strip() == "newer", "there is nothing left to go back to"
    host.remove(again.id)


def sectors(spec: MachineSpec, key: Path, disk: str) -> int:
    return int(ssh(spec, key, f"cat /sys/block/{disk}/size"))


def test_a_rebuilt_guest_has_a_new_disk(make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]) -> None:
    private, public = ssh_key
    image = tiny_ref(tiny_image)
    disks = (DiskSpec(size_gib=1, image=image), DiskSpec(name="ephemeral0", size_gib=1))
    spec = make_spec(1, image, key=public, generation=1, disks=disks)
    host = make_host(OneImage(tiny_image))
    host.ensure_running(spec)
    ssh(spec, private, "echo old > /root/mark; echo kept | dd of=/dev/vdb 2>/dev/null; sync")

    rebuilt = next_generation(spec)
    host.rebuild(rebuilt, start=True, keep=frozenset({"ephemeral0"}))
    assert ssh(rebuilt, private, "cat /root/mark 2>/dev/null || echo fresh").strip() == "fresh"
    assert ssh(rebuilt, private, "dd if=/dev/vdb bs=4 count=1 2>/dev/null").strip() == "kept"
    ssh(rebuilt, private, "echo mine > /root/mark; sync")
    host.rebuild(rebuilt, start=True)
    assert ssh(rebuilt, private, "cat /root/mark").strip() == "mine", "done once for each time it was asked for"

    stopped = next_generation(rebuilt)
    assert host.rebuild(stopped, start=False).state is MachineState.SHUTOFF
    host.remove(spec.id)


def test_a_rescued_guest_boots_the_rescue_image_and_sees_its_disk(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    spec = make_spec(1, None, key=public, generation=1)
    host = make_host(OneImage(tiny_image))
    host.ensure_running(spec)
    image = tiny_ref(tiny_image)
    rescued = next_generation(spec, disks=(DiskSpec(name="rescue", image=image), *spec.disks))
    host.reboot(rescued, hard=True, grace_seconds=0)
    assert sectors(rescued, private, "vdb") == 1 << 21
    ssh(rescued, private, "echo mine | dd of=/dev/vdb 2>/dev/null; sync")
    own = next_generation(rescued, disks=spec.disks)
    host.reboot(own, hard=False, grace_seconds=20)
    assert sorted(path.name for path in host.paths.machine(spec.id).directory.glob("*.qcow2")) == ["root.qcow2"]
    assert host.reboot(rescued, hard=True, grace_seconds=0).state is MachineState.RUNNING
    assert ssh(rescued, private, "dd if=/dev/vdb bs=4 count=1 2>/dev/null").strip() == "mine"
    host.remove(spec.id)


def test_an_interrupted_stop_skips_the_grace_period(make_host: HostMaker, blank_image: Path) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    began = time.monotonic()
    stopping = threading.Thread(target=host.ensure_stopped, args=(spec.id,), kwargs={"grace_seconds": 60.0})
    stopping.start()
    time.sleep(0.5)
    host.interrupt(spec.id)
    stopping.join()
    assert time.monotonic() - began < 15
    assert host.report(spec.id).state is MachineState.SHUTOFF
    host.remove(spec.id)


def test_a_machine_has_at_most_eight_interfaces(make_host: HostMaker, blank_image: Path) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    first = spec.nics[0]
    many = [
        first.model_copy(update={"port_id": str(uuid.uuid4()), "mac": f"02:00:f0:00:02:{number:02x}", "addresses": ()})
        for number in range(8)
    ]
    host.ensure_nics(spec.model_copy(update={"nics": (first, *many[:7])}))
    with pytest.raises(HypervisorError, match="at most 8"):
        host.ensure_nics(spec.model_copy(update={"nics": (first, *many)}))
    host.remove(spec.id)
