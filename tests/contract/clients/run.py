"""Clients in other languages against a running cloud: `make clients` (after `make demo`). docs/client-suites.md.

Runs each installed client (fog-openstack, pkgcloud, packer) and prints which are missing. A server is created,
used and deleted by each; packer builds an image of the tiny guest over IPv6, and a server boots from it.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from openstack.connection import Connection

from tests.contract.conftest import Cloud, Key, wait_until

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="the state directory of the cloud, with clouds.yaml")
    parser.add_argument("clients", nargs="*", help=f"of {', '.join(CLIENTS)}; by default those that are installed")
    asked = parser.parse_args()
    failed = []
    for name in asked.clients or CLIENTS:
        is_installed, run = CLIENTS[name]
        if not asked.clients and not is_installed():
            print(f"{name}: not installed")
            continue
        try:
            run(Cloud(asked.state, ""))
        except (subprocess.CalledProcessError, AssertionError) as error:
            print(f"{name}: {error}")
            failed.append(name)
    return 1 if failed else 0


def run_program(cloud: Cloud, command: Sequence[str | Path], **environment: str) -> None:
    """Run a client as the demo user. Raises CalledProcessError."""
    given = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.state / "clouds.yaml"), **environment}
    subprocess.run(command, check=True, env=given, timeout=TIMEOUT_SECONDS)


def run_fog(cloud: Cloud) -> None:
    run_program(cloud, ["ruby", "-W0", HERE / "fog_life.rb", cloud.state / "clouds.yaml"])


def run_pkgcloud(cloud: Cloud) -> None:
    run_program(cloud, ["node", HERE / "pkgcloud_life.js", cloud.state / "clouds.yaml"])


def run_packer(cloud: Cloud) -> None:
    """Build an image with packer and boot a server from it."""
    with cloud.connect() as connection, tempfile.TemporaryDirectory() as work:
        network = connection.get_network("public")
        image = f"tiny-by-packer-{secrets.token_hex(4)}"
        variables = ["-var", f"network={network.id}", "-var", f"image={image}"]
        run_program(
            cloud,
            ["packer", "build", "-color=false", *variables, HERE / "packer.json"],
            HOME=work,
            CHECKPOINT_DISABLE="1",
        )
        try:
            _boot_built(connection, image, _make_key(Path(work)))
        finally:
            connection.delete_image(image)


def _make_key(work: Path) -> Key:
    private = work / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
    return Key(private, private.with_suffix(".pub").read_text().strip())


def _boot_built(connection: Connection, image: str, key: Key) -> None:
    """Boot a server from packer's image and read the file that packer wrote."""
    connection.create_keypair("from-packer", key.public)
    try:
        server = connection.create_server("from-packer", image=image, flavor="tiny", key_name="from-packer", wait=True)
        assert key.ssh(server.access_ipv6, "cat /root/built").strip() == "built-by-packer"
        print("packer: done")
    finally:
        connection.delete_server("from-packer")
        wait_until(lambda: connection.get_server("from-packer") is None)
        connection.delete_keypair("from-packer")


def _has_fog() -> bool:
    return bool(shutil.which("ruby")) and not _status("ruby", "-W0", "-e", 'require "fog/openstack"')


def _has_pkgcloud() -> bool:
    return bool(shutil.which("node")) and not _status("node", "-e", 'require("pkgcloud")')


def _status(*command: str) -> int:
    return subprocess.run(command, capture_output=True).returncode


CLIENTS: dict[str, tuple[Callable[[], bool], Callable[[Cloud], None]]] = {
    "fog": (_has_fog, run_fog),
    "pkgcloud": (_has_pkgcloud, run_pkgcloud),
    "packer": (lambda: shutil.which("packer") is not None, run_packer),
}

if __name__ == "__main__":
    sys.exit(main())
