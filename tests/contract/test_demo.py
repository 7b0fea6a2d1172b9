"""`make demo` end to end: the scripts, the openstack command and a real guest, in a network namespace."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.support import namespace, tiny_image

__all__ = ["namespace", "tiny_image"]

TOP = Path(__file__).parents[2]
LISTEN = "127.0.0.1:8774"
pytestmark = pytest.mark.usefixtures("namespace", "tiny_image")


class Shell:
    """Runs the scripts of the make targets with make's environment."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "STATE": str(self.state), "LISTEN": LISTEN, "SSH_SECONDS": "120"}
        return subprocess.run(
            [TOP / "scripts" / script, *arguments],
            cwd=TOP,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def links(self) -> set[str]:
        listing = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
        return {line.split(":")[1].strip() for line in listing.splitlines()}

    def processes(self) -> list[str]:
        """Return the command lines that contain the state directory."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            if os.fsencode(self.state) in command:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "state")
    yield shell
    if shell.state.exists():
        shell.run("stop.sh", "--remove-state")


def test_demo_boots_a_guest_is_repeatable_and_leaves_nothing(shell: Shell) -> None:
    links = shell.links()

    first = shell.run("demo.sh")
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"^ *Linux demo \S+ .*x86_64", first.stdout, re.MULTILINE), first.stdout
    assert "openstack server create --flavor tiny" in first.stdout
    login = re.search(r"ssh -i \S+ -o UserKnownHostsFile=\S+ root@[0-9a-f:]+", first.stdout)
    assert login is not None
    for secret in ("clouds.yaml", "demo_key"):
        assert (shell.state / secret).stat().st_mode & 0o777 == 0o600

    again = shell.run("demo.sh")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "running already" in again.stdout
    assert "$ openstack server create" not in again.stdout

    # The printed command works unmodified.
    answer = subprocess.run([*login.group().split(), "hostname"], capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "demo", answer.stderr

    end = shell.run("stop.sh", "--remove-state")
    assert end.returncode == 0, end.stdout + end.stderr
    assert not shell.state.exists()
    assert shell.links() == links
    assert shell.processes() == []


def test_busy_port_is_a_one_line_error_and_leaves_nothing(shell: Shell) -> None:
    links = shell.links()
    host, port = LISTEN.split(":")
    with socket.create_server((host, int(port))):
        refused = shell.run("demo.sh")
    assert refused.returncode == 1
    assert "sixstack: cannot listen at 127.0.0.1:8774" in refused.stderr
    assert "make demo LISTEN=" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert shell.processes() == []
    assert shell.links() == links


def test_foreign_directories_are_never_deleted(shell: Shell) -> None:
    shell.state.mkdir()
    (shell.state / "thesis.tex").write_text("years of work")
    refused = shell.run("stop.sh", "--remove-state")
    assert refused.returncode == 1
    assert "does not look like the state of a Sixstack" in refused.stderr
    assert (shell.state / "thesis.tex").exists()
