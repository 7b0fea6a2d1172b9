"""Host facts: CPU, memory, disk and qemu versions; verification of host requirements."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from hypervisor.api.errors import HostUnfit

# The IPv6 neighbour table is shared by all networks of a host. The kernel's default thresholds are 128, 512 and 1024
# entries.
NEIGHBOURS = Path("/proc/sys/net/ipv6/neigh/default")
NEIGHBOUR_LIMITS = {"gc_thresh3": 65536, "gc_thresh2": 32768, "gc_thresh1": 8192}
TUN_DEVICE = "/dev/net/tun"
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
    """Verify root, programs and /dev/net/tun. Raises HostUnfit with the remedy."""
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
    """Raise the thresholds of the IPv6 neighbour table to NEIGHBOUR_LIMITS; higher ones stay.

    Raises HostUnfit when writing fails. These sysctls exist in the initial network namespace only.
    """
    for name, minimum in NEIGHBOUR_LIMITS.items():
        limit = directory / name
        try:
            if int(limit.read_text()) < minimum:
                limit.write_text(str(minimum))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostUnfit(f"{limit} cannot be set to {minimum}: {error.strerror}.") from error


def cpu_count() -> int:
    return os.cpu_count() or 1


def cpu_model() -> str:
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return models[0] if models else ""


def memory_mib() -> int:
    (kib,) = re.findall(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(kib) // 1024


def disk_gib(directory: Path) -> int:
    """Return the size in GiB of the file system of a directory, which is created if necessary."""
    directory.mkdir(parents=True, exist_ok=True)
    status = os.statvfs(directory)
    return status.f_blocks * status.f_frsize >> 30


def free_disk_mib(directory: Path) -> int:
    """Return the available space in MiB of the file system of a directory, which need not exist."""
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize >> 20


def qemu_version(qemu: str) -> int:
    """Return the version of qemu as an integer: 7.2.18 is 7002018. Unknown versions are 0."""
    try:
        result = subprocess.run([qemu, "--version"], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise HostUnfit(f"{qemu} is missing: {QEMU_PACKAGE}") from None
    version = re.search(r"version (\d+)\.(\d+)\.(\d+)", result.stdout)
    major, minor, micro = map(int, version.groups()) if version else (0, 0, 0)
    return major * 1_000_000 + minor * 1_000 + micro


def machine_type(qemu: str) -> str:
    """Resolve the alias "q35" to the newest versioned machine type, such as `pc-q35-7.2`; "q35" if unresolved."""
    result = subprocess.run([qemu, "-machine", "help"], capture_output=True, text=True, timeout=20)
    alias = re.search(r"^q35\s.*alias of ([\w.-]+)", result.stdout, re.MULTILINE)
    return alias[1] if alias else "q35"
