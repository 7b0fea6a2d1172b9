"""Fixtures of a complete cloud: `sixstack up` as a process, real qemu, real clients on loopback."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, TypeVar

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests import openstack_command
from tests.host.support import TINY_IMAGE, why_no_host

Found = TypeVar("Found")

BIN = Path(sys.executable).parent
SSH = ["ssh", "-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]


def wait_until(look: Callable[[], Found], *, seconds: float = 120, pause: float = 0.2) -> Found:
    """Poll `look` until it returns a true value and return that; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "timeout waiting for a condition"
        time.sleep(pause)
    return found


def free_port() -> int:
    """Return a free TCP port below the kernel's ephemeral range, so that it stays free."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@dataclass
class Cloud:
    """One installation; `up` and `down` as from a shell."""

    state: Path
    listen: str
    process: subprocess.Popen[str] | None = None
    options: list[str] = field(default_factory=list)

    def up(self) -> None:
        command = [BIN / "sixstack", "up", "--state", self.state, "--listen", self.listen, *self.options]
        log = self.log.open("a")
        before = self.log.read_text().count("Sixstack answers")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        log.close()

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return self.log.read_text().count("Sixstack answers") > before

        wait_until(answers, pause=0.05)

    def down(self, *options: str) -> None:
        subprocess.run([BIN / "sixstack", "down", "--state", self.state, *options], check=True, capture_output=True)
        if self.process is not None:
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """Kill all processes of the installation with SIGKILL, except guests."""
        while ours := self.pids():
            for pid in ours:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)
            self.process = None
        wait_until(lambda: not self.pids(), seconds=10, pause=0.02)

    def pids(self) -> list[int]:
        """Return the pids of supervisor, API and agent of this installation, found by environment and command line."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                environment = (directory / "environ").read_bytes()
                command = (directory / "cmdline").read_bytes()
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            is_installation = f"SIXSTACK_STATE={self.state}\0".encode() in environment
            ours = b"compute_agent" in command or b"app.server" in command or b"multiprocessing" in command
            if state != "Z" and (
                (is_installation and ours) or (b"sixstack\0up" in command and str(self.state).encode() in command)
            ):
                found.append(int(directory.name))
        return found

    @property
    def log(self) -> Path:
        return self.state.parent / f"{self.state.name}.log"

    @property
    def installation(self) -> str:
        text = (self.state / "installation.json").read_text()
        return re.findall(r'"id": "([0-9a-f]{4})"', text)[0]

    def connect(self, name: str = "sixstack") -> Connection:
        config = OpenStackConfig(config_files=[str(self.state / "clouds.yaml")], load_envvars=False)
        return Connection(config=config.get_one(cloud=name))

    def cli(self, *arguments: str, cloud: str = "sixstack", check: bool = True) -> str:
        """Run the `openstack` command and return its output."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        environment |= {"OS_CLIENT_CONFIG_FILE": str(self.state / "clouds.yaml"), "OS_CLOUD": cloud}
        done = openstack_command.run(arguments, environment)
        if check:
            assert done.status == 0, f"{' '.join(arguments)}: {done.errors}\n{self.log.read_text()[-2000:]}"
        return done.output if check else done.output + done.errors

    def links(self) -> list[str]:
        """Return the names of this installation's network links."""
        return [path.name for path in Path("/sys/class/net").iterdir() if path.name[2:6] == self.installation]

    def guests(self) -> list[int]:
        """Return the pids of this installation's qemu processes."""
        name = f"guest={self.installation}-".encode()
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if name in _read(path) and path.exists()
        ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@dataclass(frozen=True)
class Key:
    """A key pair: the private key file for ssh and the public key."""

    private: Path
    public: str

    def ssh(self, address: str, *command: str, seconds: float = 120) -> str:
        """Run a command in the guest, retrying until ssh connects, and return its output."""
        login = [*SSH, "-o", "ConnectTimeout=20", "-i", str(self.private), f"root@{IPv6Address(address)}"]

        def try_once() -> subprocess.CompletedProcess[str] | None:
            done = subprocess.run([*login, *command], capture_output=True, text=True, timeout=60)
            return done if done.returncode != 255 else None

        done = wait_until(try_once, seconds=seconds, pause=1.0)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    private = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
    return Key(private, private.with_suffix(".pub").read_text().strip())


def need_a_host() -> None:
    if (reason := why_no_host()) is not None:
        pytest.skip(reason)
    if not TINY_IMAGE.exists():
        pytest.skip("there is no tiny guest image: make image")


def configure(cloud: Cloud, key: Key) -> None:
    """Upload the tiny image as public and create the demo user's key pair."""
    with cloud.connect("sixstack-admin") as admin:
        admin.create_image(
            "tiny",
            data=TINY_IMAGE.read_bytes(),
            disk_format="qcow2",
            container_format="bare",
            visibility="public",
            wait=True,
        )
    with cloud.connect() as connection:
        connection.create_keypair("key", key.public)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory, key: Key) -> Iterator[Cloud]:
    """A running cloud with image `tiny` and key pair `key`; fails if links or processes are left."""
    need_a_host()
    made = Cloud(tmp_path_factory.mktemp("cloud") / "state", f"127.0.0.1:{free_port()}")
    try:
        made.up()
        configure(made, key)
        yield made
    finally:
        made.down("--servers")
    assert made.links() == []
    assert made.guests() == []
    assert made.pids() == []


@pytest.fixture
def other_cloud(tmp_path: Path, key: Key) -> Iterator[Cloud]:
    """A cloud for one test, which may kill and restart it."""
    need_a_host()
    made = Cloud(tmp_path / "state", f"127.0.0.1:{free_port()}")
    try:
        made.up()
        configure(made, key)
        yield made
    finally:
        made.down("--servers")
    assert made.links() == []
    assert made.guests() == []
    assert made.pids() == []


@pytest.fixture
def connection(cloud: Cloud) -> Iterator[Connection]:
    """openstacksdk connection of the demo user; deletes remaining servers afterwards."""
    with cloud.connect() as made:
        yield made
        for server in made.list_servers():
            made.compute.delete_server(server.id)
        wait_until(lambda: not made.list_servers())


@pytest.fixture
def boot(connection: Connection) -> Callable[..., Any]:
    """`boot("name")` creates a tiny server and returns it when ACTIVE."""

    def create(name: str, **more: Any) -> Any:
        arguments = {"image": "tiny", "flavor": "tiny", "key_name": "key", "wait": True, "auto_ip": True, **more}
        return connection.create_server(name, **arguments)

    return create
