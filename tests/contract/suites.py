"""What others have written, unmodified: openstacksdk's functional tests and tempest's, in processes of their own."""

import configparser
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.contract.identity_cloud import IdentityCloud

TESTTOOLS = ("-m", "testtools.run")
EACH = (str(Path(__file__).parent / "tempest/each.py"),)
"""Runs tempest's tests and says of each how it went."""


def run_sdk(
    packages: Iterable[str], excluded: Iterable[str], environment: Mapping[str, str], cwd: Path | None = None
) -> str:
    """openstacksdk's functional tests, but for those that `excluded` names in pytest's way; returns the last line."""
    chosen = " and ".join(f"not ({name})" for name in excluded)
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-W", "ignore", "--show-capture=no", "-k", chosen]
    if cwd is not None:
        options += ["--rootdir", str(cwd)]
    command = [sys.executable, "-m", "pytest", *options, "--pyargs", *packages]
    ended = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-8000:]
    return ended.stdout.splitlines()[-1]


def tempest_environment(cloud: IdentityCloud, settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Write tempest.conf for a cloud that has neither volumes nor object storage, with `settings` besides, section by
    section; returns the environment in which tempest finds it."""
    written = configparser.ConfigParser(interpolation=None)
    written.read_dict(
        {
            "DEFAULT": {"log_file": str(cloud.work / "tempest.log")},
            "oslo_concurrency": {"lock_path": str(cloud.work / "lock")},
            "auth": {
                "use_dynamic_credentials": "true",
                "admin_username": "admin",
                "admin_password": cloud.clouds["sixstack-admin"]["auth"]["password"],
                "admin_project_name": "admin",
                "admin_domain_name": "Default",
                "create_isolated_networks": "false",
                "tempest_roles": "member",
            },
            "identity": {"uri_v3": f"{cloud.url}/identity/v3", "auth_version": "v3", "region": "RegionOne"},
            "service_available": {"cinder": "false", "swift": "false", "horizon": "false"},
        }
    )
    for section, values in settings.items():
        if not written.has_section(section):
            written.add_section(section)
        written[section].update(values)
    with (cloud.work / "tempest.conf").open("w") as file:
        written.write(file)
    return {**cloud.environment, "TEMPEST_CONFIG_DIR": str(cloud.work), "TEMPEST_CONFIG": "tempest.conf"}


def run_tempest(
    cloud: IdentityCloud, environment: Mapping[str, str], words: Iterable[str], program: Iterable[str] = TESTTOOLS
) -> str:
    """What the program prints; fails where a test does."""
    command = [sys.executable, "-W", "ignore", *program, *words]
    ended = subprocess.run(command, env=environment, cwd=cloud.work, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-8000:]
    return ended.stdout
