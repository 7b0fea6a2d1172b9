"""The command line of qemu: a pure function of a machine, of its open files and of the accelerator.

qemu is handed everything by file descriptor: disks, console, control socket and taps. So it needs no right to look into
the state directory, its user may be nobody in particular, and no path has to be quoted or short.
"""

import json
from dataclasses import dataclass
from typing import Any

from hypervisor.api.spec import MachineSpec, NicSpec
from hypervisor.qemu import tls

# Measured: a guest of 512 MiB took 1.5 GB with qemu's default of 1 GB for translated code, and 0.6 GB with 256 MB;
# a tiny guest takes 195 MiB with 32 MB and is not slower.
SMALL_GUEST_MIB = 384
SMALL_TRANSLATION_CACHE_MIB = 32
TRANSLATION_CACHE_MIB = 256
# Root ports for network interfaces: only what sits in one can be plugged in and out. They cost no time at boot.
SLOTS = 8


@dataclass(frozen=True)
class OpenDisk:
    """A disk as qemu gets it. `base` is the file below the overlay; a read-only disk has one file and is raw."""

    name: str
    descriptor: int
    format: str
    base: int | None = None
    base_format: str | None = None
    read_only: bool = False
    cdrom: bool = False


@dataclass(frozen=True)
class OpenNic:
    """A network interface, the tap it is plugged into, and the slot it sits in."""

    nic: NicSpec
    tap: int
    slot: int = 0


@dataclass(frozen=True)
class OpenFiles:
    """The descriptors that qemu inherits. `memory` is that of a guest that was suspended and goes on; `key` is the
    directory with the key of another host whose guest is awaited; `serial` is where clients of the serial console
    come, of a machine that has a screen too."""

    qmp: int
    console: int
    disks: tuple[OpenDisk, ...]
    nics: tuple[OpenNic, ...] = ()
    memory: int | None = None
    key: int | None = None
    serial: int | None = None

    def descriptors(self) -> tuple[int, ...]:
        """All of them, for whoever starts qemu."""
        disks = [fd for disk in self.disks for fd in (disk.descriptor, disk.base) if fd is not None]
        more = [fd for fd in (self.memory, self.key, self.serial) if fd is not None]
        return (self.qmp, self.console, *disks, *(nic.tap for nic in self.nics), *more)


def qemu_command(
    spec: MachineSpec,
    files: OpenFiles,
    *,
    accelerator: str,
    program: str = "qemu-system-x86_64",
    label: str = "",
    machine: str = "q35",
    processor: str = "",
    generation_id: str = "auto",
    frozen: bool = False,
) -> list[str]:
    """argv for one machine. `label` is put before the machine's id in the process list.

    `machine` names what the guest sees as its main board, `processor` its model under KVM; both have to be the same
    wherever the guest goes. A `frozen` one does not begin to run.
    """
    words = [
        program,
        *("-name", f"guest={label}{spec.id}", "-uuid", spec.id),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", f"{machine},graphics=off,vmport=off,dump-guest-core=off,suppress-vmdesc=on"),
        *_processor(spec, accelerator, processor),
        *("-m", f"size={spec.memory_mib}M", "-smp", _processors(spec)),
        # What guests look for to know that they are in an OpenStack cloud.
        *("-smbios", "type=1,manufacturer=Sixstack,product=OpenStack Nova"),
        # A guest that sleeps cannot be woken through the API, so it is not offered.
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1"),
        *("-rtc", "base=utc,driftfix=slew"),
        # A guest that powers off ends qemu and one that reboots goes on; a panic stays visible until somebody acts.
        *("-action", "reboot=reset,shutdown=poweroff,panic=pause"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", f"socket,id=qmp,fd={files.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *_inherited(files.console),
        *("-chardev", _console(files)),
        *("-device", _json(driver="isa-serial", id="serial0", chardev="console")),
        *("-object", _json(**{"qom-type": "rng-builtin", "id": "rng0"})),
        *("-device", _json(driver="virtio-rng-pci", rng="rng0")),
        *("-device", _json(driver="vmgenid", guid=generation_id)),
    ]
    for number, disk in enumerate(files.disks):
        words += _disk(number, disk, is_incoming=files.key is not None)
    for number in range(SLOTS):
        words += ["-device", _json(driver="pcie-root-port", id=f"slot{number}", chassis=number + 1)]
    for nic in files.nics:
        words += ["-netdev", json.dumps(nic_netdev(nic.slot, str(nic.tap)))]
        words += ["-device", json.dumps(nic_device(nic.slot, nic.nic))]
    if files.serial is not None:
        # Last, so that all other devices are where they are without it. Clients are handed over by the control socket.
        words += ["-vnc", "none", "-device", _json(driver="VGA", id="screen")]
    if files.memory is not None:
        words += ["-incoming", f"fd:{files.memory}"]
    if files.key is not None:
        words += ["-object", json.dumps(tls.server_credentials(files.key)), "-incoming", "defer"]
    return [*words, "-S"] if frozen else words


def _console(files: OpenFiles) -> str:
    """Always written to the log; `serial` lets somebody take part."""
    if files.serial is None:
        return f"file,id=console,path={_path(files.console)},append=on"
    log = f"logfile={_path(files.console)},logappend=on"
    return f"socket,id=console,fd={files.serial},server=on,wait=off,{log}"


def _processors(spec: MachineSpec) -> str:
    if spec.topology is None:
        return f"cpus={spec.vcpus}"
    seen = spec.topology
    return f"cpus={spec.vcpus},sockets={seen.sockets},cores={seen.cores},threads={seen.threads}"


def disk_device(number: int) -> str:
    """What qemu calls the guest's side of the disk with this place in the command line, unless it is a CD-ROM."""
    return f"virtio-disk{number}"


def _processor(spec: MachineSpec, accelerator: str, model: str) -> list[str]:
    # AMD's processors do not tell guests of threads, or only when told to; others do not mind being told.
    has_threads = spec.topology is not None and spec.topology.threads > 1
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", f"{model or 'host'}{',topoext=on' if has_threads else ''}"]
    cache = SMALL_TRANSLATION_CACHE_MIB if spec.memory_mib <= SMALL_GUEST_MIB else TRANSLATION_CACHE_MIB
    return ["-accel", f"tcg,tb-size={cache}", "-cpu", "max,vendor=GenuineIntel" if has_threads else "max"]


def _disk(number: int, disk: OpenDisk, *, is_incoming: bool) -> list[str]:
    """A drive whose every layer has its format said aloud, so that qemu never guesses from what a guest wrote.

    One that `is_incoming` may be written by the host that sends it until the guest is here.
    """
    drive = f"disk{number}"
    words = _inherited(disk.descriptor)
    node: dict[str, Any] = {
        "driver": disk.format,
        "node-name": drive,
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": _file(disk.descriptor, read_only=disk.read_only),
    }
    if disk.format == "qcow2":
        node["backing"] = None
        if disk.base is not None:
            words += _inherited(disk.base)
            base: dict[str, Any] = {"driver": disk.base_format, "read-only": True}
            base["file"] = _file(disk.base, read_only=True)
            if disk.base_format == "qcow2":
                base["backing"] = None
            node["backing"] = base
    words += ["-blockdev", json.dumps(node)]
    # A full file system of the host pauses the guest, which repeats the write when it continues; other errors are the
    # guest's to handle.
    device: dict[str, Any] = {"driver": "virtio-blk-pci", "id": disk_device(number), "drive": drive, "werror": "enospc"}
    if disk.cdrom:
        device = {"driver": "ide-cd", "id": f"ide-{drive}", "bus": f"ide.{number}", "drive": drive}
    if is_incoming and not disk.read_only:
        device |= {"share-rw": True}
    if disk.name != "config":
        device |= {"bootindex": number}
    return [*words, "-device", _json(**device)]


def nic_name(slot: int) -> str:
    """What qemu calls the interface in a slot."""
    return f"nic{slot}"


def nic_address(slot: int) -> str:
    """Where a guest finds the interface in a slot: domain, bus, device and function. Firmware numbers buses in the
    order of root ports, and there are no other bridges."""
    return f"0000:{slot + 1:02x}:00.0"


def nic_netdev(slot: int, descriptor: str) -> dict[str, Any]:
    """The host's side of the interface in a slot; `descriptor` is the tap's number, or its name in the monitor."""
    return {"type": "tap", "id": f"net{slot}", "fd": descriptor}


def nic_device(slot: int, nic: NicSpec) -> dict[str, Any]:
    """The guest's side. An empty romfile leaves out the PXE ROM; host_mtu makes the guest's link come up with the
    segment's MTU."""
    return {
        "driver": "virtio-net-pci",
        "id": nic_name(slot),
        "bus": f"slot{slot}",
        "netdev": f"net{slot}",
        "mac": nic.mac,
        "host_mtu": nic.mtu,
        "romfile": "",
    }


def _inherited(descriptor: int) -> list[str]:
    return ["-add-fd", f"fd={descriptor},set={descriptor}"]


def _path(descriptor: int) -> str:
    return f"/dev/fdset/{descriptor}"


def _file(descriptor: int, *, read_only: bool) -> dict[str, Any]:
    return {"driver": "file", "filename": _path(descriptor), "read-only": read_only, "discard": "unmap"}


def _json(**members: Any) -> str:
    return json.dumps(members)
