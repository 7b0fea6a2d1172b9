"""Tempest against a temporary cloud: `python -m tests.contract.tempest.run [name ...]`.

Without names it runs those of required.txt. Starts `sixstack up` in a directory that it removes afterwards, uploads the
tiny guest twice, makes two flavors, writes tempest.conf, and ends cloud and guests. Needs root, as every host does.
"""

import argparse
import configparser
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openstack
import yaml
from openstack.connection import Connection

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
TINY = ROOT / "var/images/tiny.qcow2"
BIN = Path(sys.executable).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="tempest", description=__doc__)
    parser.add_argument("names", nargs="*", help="tests, classes or modules, by their whole names")
    parser.add_argument("--state", type=Path, help="where to work; kept afterwards (default: a directory that goes)")
    asked = parser.parse_args()
    if not TINY.exists():
        print("There is no tiny guest yet: make image", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="tempest-") as temporary:
        work = asked.state or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        return run(work, asked.names)


def run(work: Path, names: list[str]) -> int:
    """Cloud up, tests, cloud down; returns tempest's exit status."""
    state, port = work / "cloud", _free_port()
    command = [str(BIN / "sixstack"), "up", "--state", str(state), "--listen", f"127.0.0.1:{port}"]
    with (work / "cloud.log").open("w") as log:
        cloud = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        admin = _connection(state, "sixstack-admin", cloud)
        write_configuration(work, state, port, admin)
        return _tempest(work, names)
    finally:
        subprocess.run([str(BIN / "sixstack"), "down", "--servers", "--state", str(state)], cwd=ROOT, check=False)
        cloud.send_signal(signal.SIGTERM)
        cloud.wait(60)


def write_configuration(work: Path, state: Path, port: int, admin: Connection) -> None:
    """Write tempest.conf and create the two images and two flavors that it names."""
    first, second = (_image(admin, name) for name in ("tiny-1", "tiny-2"))
    small = admin.compute.create_flavor(name="tempest-1", ram=128, vcpus=1, disk=1)
    large = admin.compute.create_flavor(name="tempest-2", ram=192, vcpus=1, disk=2)
    prefix: str = json.loads((state / "installation.json").read_text())["prefix"]
    password = yaml.safe_load((state / "clouds.yaml").read_text())["clouds"]["sixstack-admin"]["auth"]["password"]
    sections: dict[str, dict[str, str]] = {
        "DEFAULT": {"log_file": str(work / "tempest.log"), "use_stderr": "false"},
        "oslo_concurrency": {"lock_path": str(work / "locks")},
        "auth": {
            "use_dynamic_credentials": "true",
            "create_isolated_networks": "false",
            "admin_username": "admin",
            "admin_password": password,
            "admin_project_name": "admin",
            "admin_domain_name": "Default",
            "default_credentials_domain_name": "Default",
            "tempest_roles": "member",
        },
        "identity": {"uri_v3": f"http://127.0.0.1:{port}/identity/v3", "auth_version": "v3", "region": "RegionOne"},
        "identity-feature-enabled": {"api_v2": "false", "api_v3": "true"},
        "service_available": {
            "cinder": "false",
            "swift": "false",
            "neutron": "true",
            "nova": "true",
            "glance": "true",
            "horizon": "false",
        },
        "compute": {
            "image_ref": first,
            "image_ref_alt": second,
            "flavor_ref": small.id,
            "flavor_ref_alt": large.id,
            "fixed_network_name": "public",
            "min_compute_nodes": "1",
            "build_timeout": "120",
            "max_microversion": "2.96",
        },
        "compute-feature-enabled": {
            "attach_encrypted_volume": "false",
            "resize": "true",
            "cold_migration": "false",
            "live_migration": "false",
            "console_output": "true",
            "interface_attach": "true",
            "personality": "false",
            "nova_cert": "false",
            "vnc_console": "true",
            "volume_multiattach": "false",
            "swap_volume": "false",
            "config_drive": "true",
            "can_migrate_between_any_hosts": "false",
            "metadata_service": "false",
            "enable_instance_password": "true",
            "hostname_fqdn_sanitization": "true",
            "api_extensions": "",
        },
        "image-feature-enabled": {"os_glance_reserved": "false"},
        "network": {
            "project_network_v6_cidr": prefix.replace("::/48", ":f000::/52"),
            "shared_physical_network": "false",
        },
        "network-feature-enabled": {"ipv6": "true", "floating_ips": "false", "port_security": "false"},
        "validation": {
            "run_validation": "true",
            "auth_method": "keypair",
            "connect_method": "fixed",
            "network_for_ssh": "public",
            "ip_version_for_ssh": "6",
            "image_ssh_user": "root",
            "image_alt_ssh_user": "root",
            "security_group": "false",
            "security_group_rules": "false",
            "ssh_key_type": "ecdsa",
            "ssh_shell_prologue": "",
            "ssh_timeout": "120",
        },
    }
    configuration = configparser.ConfigParser(interpolation=None, default_section="none")
    configuration.read_dict(sections)
    workspace = work / "workspace"
    (workspace / "etc").mkdir(parents=True, exist_ok=True)
    with (workspace / "etc/tempest.conf").open("w") as file:
        configuration.write(file)


def _tempest(work: Path, names: list[str]) -> int:
    workspace = work / "workspace"
    environment = {
        **os.environ,
        "TEMPEST_CONFIG_DIR": str(workspace / "etc"),
        "TEMPEST_CONFIG": "tempest.conf",
        "OS_TEST_TIMEOUT": "600",
    }
    if not names:
        names = [line for line in (HERE / "required.txt").read_text().split("\n") if line.startswith("tempest.")]
    command = [sys.executable, str(HERE / "each.py"), *names]
    return subprocess.run(command, env=environment, cwd=workspace, check=False).returncode


def _image(admin: Connection, name: str) -> str:
    image = admin.image.create_image(
        name=name, filename=str(TINY), disk_format="qcow2", container_format="bare", visibility="public", wait=True
    )
    return str(image.id)


def _connection(state: Path, cloud: str, process: subprocess.Popen[bytes]) -> Connection:
    """Return a connection to the cloud when its API responds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (state / "clouds.yaml").exists():
            try:
                config = openstack.config.OpenStackConfig(config_files=[str(state / "clouds.yaml")])
                connection = Connection(config=config.get_one(cloud))
                connection.authorize()
            except Exception:
                time.sleep(0.2)
                continue
            return connection
        time.sleep(0.2)
    raise SystemExit(f"The cloud did not start; see {state.parent / 'cloud.log'}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
