"""Helpers of host tests: network namespaces, images, machine specs, and detection of leaked resources."""

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, IPv6Interface
from pathlib import Path

import pytest

from hypervisor.api.errors import ImageUnusable
from hypervisor.api.spec import DiskSpec, ImageRef, KeySpec, MachineSpec, NicSpec
from hypervisor.base.addresses import slaac_address
from hypervisor.base.config import HostConfig
from hypervisor.driver import QemuHypervisor

CLONE_NEWNET = 0x40000000
RTF_LOCAL = 0x80000000
TINY_IMAGE = Path(__file__).parents[2] / "var/images/tiny.qcow2"
PREFIX = IPv6Interface("fd00:6:6:6::/64")
_libc = ctypes.CDLL(None, use_errno=True)


def why_no_host() -> str | None:
    """Return the reason why machines cannot run here, or None."""
    if os.geteuid() != 0:
        return "real machines need root"
    if not os.path.exists("/dev/net/tun"):
        return "real machines need /dev/net/tun"
    for program in ("qemu-system-x86_64", "qemu-img", "radvd", "nft", "ip", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


@pytest.fixture
def namespace() -> Iterator[None]:
    """Run the test and its processes in an empty network namespace."""
    reason = why_no_host()
    if reason is not None:
        pytest.skip(reason)
    with open("/proc/thread-self/ns/net") as before:
        if _libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip("network namespaces cannot be made here")
        try:
            subprocess.run(["ip", "link", "set", "dev", "lo", "up"], check=True)
            yield
        finally:
            assert _libc.setns(before.fileno(), CLONE_NEWNET) == 0


def network_namespace() -> int:
    """Create a network namespace and return its descriptor. It exists while the descriptor or a process uses it."""
    with open("/proc/thread-self/ns/net") as before:
        if _libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip("network namespaces cannot be made here")
        try:
            subprocess.run(["ip", "link", "set", "dev", "lo", "up"], check=True)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            assert _libc.setns(before.fileno(), CLONE_NEWNET) == 0


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Switch this thread to a network namespace for the duration of the context."""
    with open("/proc/thread-self/ns/net") as before:
        assert _libc.setns(namespace, CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert _libc.setns(before.fileno(), CLONE_NEWNET) == 0


def wait_for_source(address: IPv6Address, peer: IPv6Address, interface: str = "") -> None:
    """Wait until packets to `peer` leave from an address that was just added, and replies to it are delivered.

    The kernel adds an address with its prefix route at once, but its local route from a work queue. Until then, packets
    to the address are answered with "network unreachable".
    """
    scope = socket.if_nametoindex(interface) if interface else 0
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect((str(peer), 9, 0, scope))
            source = IPv6Address(probe.getsockname()[0].partition("%")[0])
            if source == address and has_local_route(address):
                return
        assert time.monotonic() < deadline, f"{address} is not used for {peer}"
        time.sleep(0.01)


def has_local_route(address: IPv6Address) -> bool:
    """Return whether packets to the address are delivered in this thread's network namespace."""
    routes = (line.split() for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines())
    return any(
        (route[0], route[1]) == (address.packed.hex(), "80") and int(route[8], 16) & RTF_LOCAL for route in routes
    )


class OneImage:
    """An image source that returns the same file for every image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0

    def local_path(self, image: ImageRef) -> Path:
        self.asked += 1
        if not self.path.exists():
            raise ImageUnusable(f"Image {image.id} is gone.")
        return self.path


@pytest.fixture
def blank_image(tmp_path: Path) -> Path:
    """A raw disk of 1 MiB without an operating system, for tests that need no booted guest."""
    path = tmp_path / "blank.raw"
    path.write_bytes(bytes(1 << 20))
    return path


def image_ref(path: Path, disk_format: str, virtual_size_bytes: int, **more: str) -> ImageRef:
    return ImageRef(
        id=str(uuid.uuid4()),
        disk_format=disk_format,
        size_bytes=path.stat().st_size,
        virtual_size_bytes=virtual_size_bytes,
        **more,
    )


def make_spec(number: int, image: ImageRef | None, *, vni: int = 0x666, **changes: object) -> MachineSpec:
    """A small machine on the segment `vni`."""
    mac = f"02:00:f0:00:00:{number:02x}"
    nic = NicSpec(
        port_id=str(uuid.uuid4()),
        network_id=str(uuid.UUID(int=vni)),
        vni=vni,
        mac=mac,
        mtu=1430,
        addresses=(IPv6Interface((slaac_address(PREFIX, mac), 64)),),
        gateway=IPv6Address(int(PREFIX.network.network_address) + 1),
    )
    spec = MachineSpec(
        id=str(uuid.uuid4()),
        name=f"vm{number}",
        hostname=f"vm{number}",
        project_id="project",
        vcpus=1,
        memory_mib=128,
        disks=(DiskSpec(size_gib=1, image=image),),
        nics=(nic,),
    )
    return spec.model_copy(update=changes)


HostMaker = Callable[..., QemuHypervisor]


@pytest.fixture
def make_host(namespace: None, tmp_path: Path) -> Iterator[HostMaker]:
    """Create hypervisors of one installation. Fails the test when their machines leak processes, links or files."""
    installation = secrets.token_hex(2)
    made: list[QemuHypervisor] = []

    def make(images: OneImage, **settings: object) -> QemuHypervisor:
        chosen = {"state": tmp_path / "state", "host_name": "test", "accelerator": "tcg"} | settings
        made.append(QemuHypervisor(HostConfig(installation=installation, **chosen), images))  # type: ignore[arg-type]
        return made[-1]

    left: list[str] = []
    try:
        yield make
        left = traces(installation, tmp_path / "state")
    finally:
        for host in made[-1:]:
            for report in host.reports():
                host.remove(report.id)
            host.close_down()
        for host in made:
            host.close()
    assert left == [], left
    assert traces(installation, tmp_path / "state") == []


def traces(installation: str, state: Path) -> list[str]:
    """List links, processes and machine files of an installation."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    found = [line for line in links.splitlines() if line[2:6] == installation]
    found += [f"process {words}" for words in processes(f"guest={installation}-")]
    found += [f"process {words}" for words in processes(str(state))]
    machines = state / "machines"
    found += [str(path) for path in machines.rglob("*")] if machines.exists() else []
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in rules.splitlines() if installation in line]


def processes(word: str) -> list[str]:
    """List command lines of running processes that contain `word`."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in words and int(directory.name) != os.getpid():
            found.append(words)
    return found


@pytest.fixture
def tiny_image() -> Path:
    if not TINY_IMAGE.exists():
        pytest.skip("there is no tiny guest image: `make image`")
    return TINY_IMAGE


@pytest.fixture
def ssh_key(tmp_path: Path) -> tuple[Path, KeySpec]:
    """A key pair: the file of the private key, and the public key for machine specs."""
    private = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(private)], check=True)
    return private, KeySpec(name="key", type="ssh", data=private.with_suffix(".pub").read_text().strip())


def ssh(
    spec: MachineSpec, key: Path, command: str, *, timeout_seconds: float = 90, through: MachineSpec | None = None
) -> str:
    """Run a command in the guest, retrying until SSH accepts, and return its output. `through`: a jump host."""
    words = ["ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    words += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "LogLevel=ERROR"]
    if through is not None:
        words += ["-o", f"ProxyCommand={' '.join(words)} root@{through.nics[0].addresses[0].ip} nc %h %p"]
    words += [f"root@{spec.nics[0].addresses[0].ip}", command]
    deadline = time.monotonic() + timeout_seconds
    while True:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_seconds)
        if done.returncode == 0:
            return done.stdout
        if done.returncode != 255 or time.monotonic() > deadline:
            raise AssertionError(f"{command!r} in the guest: {done.returncode} {done.stdout} {done.stderr}")
        time.sleep(1)
