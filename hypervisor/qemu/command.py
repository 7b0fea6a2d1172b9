"""The qemu command line: a pure function of machine spec, open files and accelerator.

qemu inherits all files as descriptors: disks, console, QMP socket and taps. It needs no access to the state directory,
runs as a user without an account, and no path needs quoting or has to fit into a socket address.
"""

import json
from dataclasses import dataclass
from typing import Any

from hypervisor.api.spec import MachineSpec, NicSpec
from hypervisor.qemu import tls

# Measured: a guest of 512 MiB used 1.5 GB with qemu's default translation cache of 1 GB, and 0.6 GB with 256 MB; a tiny
# guest uses 195 MiB with 32 MB and is not slower.
SMALL_GUEST_MIB = 384
SMALL_TRANSLATION_CACHE_MIB = 32
TRANSLATION_CACHE_MIB = 256
# PCIe root ports for network interfaces; hotplug requires a root port. They do not delay the boot.
SLOTS = 8


@dataclass(frozen=True)
class OpenDisk:
    """The open files of a disk. `base` is the backing file of the overlay; a read-only disk is one raw file."""

    name: str
    descriptor: int
    format: str
    base: int | None = None
    base_format: str | None = None
    read_only: bool = False
    cdrom: bool = False


@dataclass(frozen=True)
class OpenNic:
    """A network interface with the descriptor of its tap and its PCIe slot."""

    nic: NicSpec
    tap: int
    slot: int = 0


@dataclass(frozen=True)
class OpenFiles:
    """The descriptors that qemu inherits. `memory`: the saved memory of a suspended guest; `key`: the directory of the
    TLS-PSK of an incoming migration; `serial`: the socket of the serial console, for machines with consoles."""

    qmp: int
    console: int
    disks: tuple[OpenDisk, ...]
    nics: tuple[OpenNic, ...] = ()
    memory: int | None = None
    key: int | None = None
    serial: int | None = None

    def descriptors(self) -> tuple[int, ...]:
        """List all descriptors, for inheritance by the qemu process."""
        disks = [fd for disk in self.disks for fd in (disk.descriptor, disk.base) if fd is not None]
        optional = [fd for fd in (self.memory, self.key, self.serial) if fd is not None]
        return (self.qmp, self.console, *disks, *(nic.tap for nic in self.nics), *optional)


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
    """Build argv for one machine. `label` precedes the machine's id in the process name.

    `machine` is the machine type and `processor` the CPU model under KVM; both must be equal on source and target of a
    live migration. `frozen`: do not start the vCPUs (-S).
    """
    arguments = [
        program,
        *("-name", f"guest={label}{spec.id}", "-uuid", spec.id),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", f"{machine},graphics=off,vmport=off,dump-guest-core=off,suppress-vmdesc=on"),
        *_processor(spec, accelerator, processor),
        *("-m", f"size={spec.memory_mib}M", "-smp", _processors(spec)),
        # cloud-init detects an OpenStack cloud by these SMBIOS strings.
        *("-smbios", "type=1,manufacturer=Sixstack,product=OpenStack Nova"),
        # Disable S3 and S4: the API has no action to wake up a sleeping guest.
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1"),
        *("-rtc", "base=utc,driftfix=slew"),
        # Power off ends qemu, a reboot resets the machine, and a panicked guest stays paused for inspection.
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
        arguments += _disk(number, disk, is_incoming=files.key is not None)
    for number in range(SLOTS):
        arguments += ["-device", _json(driver="pcie-root-port", id=f"slot{number}", chassis=number + 1)]
    for nic in files.nics:
        arguments += ["-netdev", json.dumps(nic_netdev(nic.slot, str(nic.tap)))]
        arguments += ["-device", json.dumps(nic_device(nic.slot, nic.nic))]
    if files.serial is not None:
        # Last, to keep the PCI addresses of all other devices. VNC clients are added through QMP (add_client).
        arguments += ["-vnc", "none", "-device", _json(driver="VGA", id="screen")]
    if files.memory is not None:
        arguments += ["-incoming", f"fd:{files.memory}"]
    if files.key is not None:
        arguments += ["-object", json.dumps(tls.server_credentials(files.key)), "-incoming", "defer"]
    return [*arguments, "-S"] if frozen else arguments


def _console(files: OpenFiles) -> str:
    """The character device of the serial console: a log file, and with `serial` also an interactive socket."""
    if files.serial is None:
        return f"file,id=console,path={_path(files.console)},append=on"
    log = f"logfile={_path(files.console)},logappend=on"
    return f"socket,id=console,fd={files.serial},server=on,wait=off,{log}"


def _processors(spec: MachineSpec) -> str:
    if spec.topology is None:
        return f"cpus={spec.vcpus}"
    topology = spec.topology
    return f"cpus={spec.vcpus},sockets={topology.sockets},cores={topology.cores},threads={topology.threads}"


def disk_device(number: int) -> str:
    """Return the qemu device id of the disk at this position of the command line, unless it is a CD-ROM."""
    return f"virtio-disk{number}"


def _processor(spec: MachineSpec, accelerator: str, model: str) -> list[str]:
    # AMD CPU models expose threads only with topoext, which other models ignore; TCG exposes them for Intel only.
    has_threads = spec.topology is not None and spec.topology.threads > 1
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", f"{model or 'host'}{',topoext=on' if has_threads else ''}"]
    cache = SMALL_TRANSLATION_CACHE_MIB if spec.memory_mib <= SMALL_GUEST_MIB else TRANSLATION_CACHE_MIB
    return ["-accel", f"tcg,tb-size={cache}", "-cpu", "max,vendor=GenuineIntel" if has_threads else "max"]


def _disk(number: int, disk: OpenDisk, *, is_incoming: bool) -> list[str]:
    """Build the block node and the device of a disk.

    Every layer has an explicit format: probing would trust content written by the guest. An `is_incoming` disk is
    shared with the NBD export that the migration source writes to.
    """
    drive = f"disk{number}"
    arguments = _inherited(disk.descriptor)
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
            arguments += _inherited(disk.base)
            base: dict[str, Any] = {"driver": disk.base_format, "read-only": True}
            base["file"] = _file(disk.base, read_only=True)
            if disk.base_format == "qcow2":
                base["backing"] = None
            node["backing"] = base
    arguments += ["-blockdev", json.dumps(node)]
    # ENOSPC on the host pauses the guest, and the write is retried on resume; other errors are reported to the guest.
    device: dict[str, Any] = {"driver": "virtio-blk-pci", "id": disk_device(number), "drive": drive, "werror": "enospc"}
    if disk.cdrom:
        device = {"driver": "ide-cd", "id": f"ide-{drive}", "bus": f"ide.{number}", "drive": drive}
    if is_incoming and not disk.read_only:
        device |= {"share-rw": True}
    if disk.name != "config":
        device |= {"bootindex": number}
    return [*arguments, "-device", _json(**device)]


def nic_name(slot: int) -> str:
    """Return the qemu device id of the interface in a slot."""
    return f"nic{slot}"


def nic_address(slot: int) -> str:
    """Return the guest's PCI address of the interface in a slot: domain, bus, device and function. Firmware numbers
    buses in the order of root ports, and there are no other bridges."""
    return f"0000:{slot + 1:02x}:00.0"


def nic_netdev(slot: int, descriptor: str) -> dict[str, Any]:
    """Build the network backend of a slot; `descriptor` is a file descriptor number or a name defined with getfd."""
    return {"type": "tap", "id": f"net{slot}", "fd": descriptor}


def nic_device(slot: int, nic: NicSpec) -> dict[str, Any]:
    """Build the network device of a slot. An empty romfile omits the PXE ROM; host_mtu advertises the segment's MTU to
    the guest."""
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
