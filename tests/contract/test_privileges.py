"""Privileges of the processes of `sixstack up`: only the supervisor and the agent run as root."""

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import BIN, Cloud, free_port, need_a_host

NET_BIND_SERVICE = 1 << 10


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("privileges") / "state"


@pytest.fixture(scope="module")
def running(state: Path) -> Iterator[Cloud]:
    need_a_host()
    made = Cloud(state, f"127.0.0.1:{free_port()}")
    try:
        made.up()
        yield made
    finally:
        made.down("--servers")
    assert made.pids() == []


def children(pid: int) -> list[int]:
    """Return the pids of all descendants of a process."""
    own = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [below for child in own for below in children(child)]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def unprivileged_pids(cloud: Cloud) -> list[int]:
    """Return the pids of the API, its workers and the console proxy."""
    found = children(int((cloud.state / "up.pid").read_text().split()[0]))
    return [pid for pid in found if "compute_agent" not in command_line(pid)]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.replace(":\t", ":").split(":", 1) for line in lines)


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


def run_as_api(cloud: Cloud, *command: str | Path) -> str:
    """Run a command in the API's mount namespace as its user; return stdout and stderr."""
    (api, *_) = (pid for pid in unprivileged_pids(cloud) if "app.server" in command_line(pid))
    user = str((cloud.state / "api").stat().st_uid)
    enter = ["nsenter", "--target", str(api), "--mount", "setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
    done = subprocess.run([*enter, *command], capture_output=True, text=True)
    return done.stdout + done.stderr


def sixstack(cloud: Cloud, *words: str) -> None:
    subprocess.run([BIN / "sixstack", *words, "--state", cloud.state], check=True, capture_output=True)


def test_api_and_consoles_run_as_a_user_without_capabilities(running: Cloud) -> None:
    user = (running.state / "api").stat().st_uid
    assert user >= 0x7FE0_0000
    found = unprivileged_pids(running)
    assert any("app.server" in command_line(pid) for pid in found)
    assert any("app.consoles" in command_line(pid) for pid in found)
    for pid in found:
        seen = status(pid)
        assert set(seen["Uid"].split()) == {str(user)}, command_line(pid)
        assert set(seen["Gid"].split()) == {str(user)}
        assert seen["Groups"].strip() == ""
        assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert seen["NoNewPrivs"] == "1"


def test_the_api_user_cannot_read_machines_passwords_or_shadow(running: Cloud) -> None:
    assert "sixstack.db" in run_as_api(running, "ls", running.state / "api")
    for command in (
        ("ls", running.state),
        ("ls", running.state / "machines"),
        ("cat", running.state / "clouds.yaml"),
        ("cat", "/etc/shadow"),
        ("touch", running.state / "installation.json"),
        ("mv", running.state / "machines", running.state / "others"),
    ):
        assert "ermission denied" in run_as_api(running, *command), command


def test_commands_run_by_root_keep_files_owned_by_the_api(running: Cloud) -> None:
    user = (running.state / "api").stat().st_uid
    for words in (("status",), ("keys", "rotate"), ("host", "list"), ("db", "purge", "--days", "1")):
        sixstack(running, *words)
    for name in ("api", "keys", "images/store"):
        assert owners(running.state / name) == {user}
    running.cli("token", "issue")


def test_state_directory_of_an_earlier_release_works(tmp_path: Path) -> None:
    need_a_host()
    cloud = Cloud(tmp_path / "state", f"127.0.0.1:{free_port()}")
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1 << 20))
    create = ["image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", str(image), "old"]
    try:
        cloud.up()
        cloud.cli(*create)
        cloud.kill()
        api = cloud.state / "api"
        for path in api.glob("sixstack.db*"):
            path.rename(cloud.state / path.name)
        shutil.rmtree(api)
        subprocess.run(["chown", "-R", "root:root", cloud.state], check=True)
        subprocess.run(["chmod", "0700", cloud.state], check=True)

        cloud.listen = f"127.0.0.1:{privileged_port()}"
        cloud.up()
        assert {"CapEff", "CapPrm", "CapBnd"} == {
            name
            for name, value in status(unprivileged_pids(cloud)[0]).items()
            if name in ("CapEff", "CapPrm", "CapBnd") and int(value, 16) == NET_BIND_SERVICE
        }
        cloud.cli("image", "save", "--file", str(tmp_path / "saved"), "old")
        assert (tmp_path / "saved").read_bytes() == image.read_bytes()
        assert list(cloud.state.glob("sixstack.db*")) == []
        for name in ("api", "keys", "images/store"):
            assert 0 not in owners(cloud.state / name)
    finally:
        cloud.down("--servers")
    assert cloud.pids() == []


def privileged_port() -> int:
    """Return a free port below 1024 (needs CAP_NET_BIND_SERVICE) whose successor is free for consoles."""
    for port in random.sample(range(600, 1022), 50):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
