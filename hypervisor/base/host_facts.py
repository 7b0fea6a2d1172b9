"""This computer: how big it is, and whether it has what machines need."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from hypervisor.api.errors import HostUnfit

# Of the IPv6 neighbour table, which all networks of a host share. The kernel's defaults are 128, 512 and 1024 entries.
NEIGHBOURS = Path("/proc/sys/net/ipv6/neigh/default")
NEIGHBOUR_LIMITS = {"gc_thresh3": 65536, "gc_thresh2": 32768, "gc_thresh1": 8192}
QEMU_PACKAGE = "apt install qemu-system-x86"
PROGRAMS = {
    "qemu-img": "apt install qemu-utils",
    "radvd": "apt install radvd",
    "nft": "apt install nftables",
    "setpriv": "apt install util-linux",
    "setsid": "apt install util-linux",
    "prlimit": "apt install util-linux",
}


def check_requirements(qemu: str) -> None:
    """Raise HostUnfit, saying what to do, when machines cannot run here."""
    if os.geteuid() != 0:
        raise HostUnfit("Running machines needs root: start Sixstack as root (sudo).")
    for program, remedy in {qemu: QEMU_PACKAGE, **PROGRAMS}.items():
        if shutil.which(program) is None:
            raise HostUnfit(f"{program} is missing: {remedy}")
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise HostUnfit(
            f"{TUN_DEVICE} cannot be opened ({error.strerror}): `modprobe tun`, or give it to the container."
        ) from error


def raise_neighbour_limits(directory: Path = NEIGHBOURS) -> None:
    """Raise the limits of the IPv6 neighbour table that are lower than hosts need.

    Raises HostUnfit when that is forbidden. Only the first network namespace has these limits.
    """
    for name, wanted in NEIGHBOUR_LIMITS.items():
        limit = directory / name
        try:
            if int(limit.read_text()) < wanted:
                limit.write_text(str(wanted))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostUnfit(f"{limit} cannot be set to {wanted}: {error.strerror}.") from error


def cpu_count() -> int:
    return os.cpu_count() or 1


def cpu_model() -> str:
    found = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[0] if found else ""


def memory_mib() -> int:
    (kib,) = re.findall(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(kib) // 1024


def disk_gib(directory: Path) -> int:
    """Size of the file system that holds the machines."""
    directory.mkdir(parents=True, exist_ok=True)
    status = os.statvfs(directory)
    return status.f_blocks * status.f_frsize >> 30


def free_disk_mib(directory: Path) -> int:
    """What is free for us of the file system that holds a directory, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize >> 20


def qemu_version(qemu: str) -> int:
    """7.2.18 is 7002018."""
    try:
        said = subprocess.run([qemu, "--version"], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise HostUnfit(f"{qemu} is missing: {QEMU_PACKAGE}") from None
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said.stdout)
    major, minor, micro = map(int, found.groups()) if found else (0, 0, 0)
    return major * 1_000_000 + minor * 1_000 + micro


def machine_type(qemu: str) -> str:
    """The versioned name of the newest q35 board: `pc-q35-7.2`. "q35" itself when qemu does not say."""
    said = subprocess.run([qemu, "-machine", "help"], capture_output=True, text=True, timeout=20)
    found = re.search(r"^q35\s.*alias of ([\w.-]+)", said.stdout, re.MULTILINE)
    return found[1] if found else "q35"


TUN_DEVICE = "/dev/net/tun"
