"""Runners of unmodified test suites: openstacksdk's functional tests and tempest, in separate processes."""

import configparser
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.contract.identity_cloud import IdentityCloud

TESTTOOLS = ("-m", "testtools.run")
EACH = (str(Path(__file__).parent / "tempest/each.py"),)
"""Program that runs tempest's tests and prints the result of each."""


def run_sdk(
    packages: Iterable[str], excluded: Iterable[str], environment: Mapping[str, str], cwd: Path | None = None
) -> str:
    """Run openstacksdk's functional tests without the `excluded` ones (pytest node ids); return the last line."""
    chosen = " and ".join(f"not ({name})" for name in excluded)
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-W", "ignore", "--show-capture=no", "-k", chosen]
    if cwd is not None:
        options += ["--rootdir", str(cwd)]
    command = [sys.executable, "-m", "pytest", *options, "--pyargs", *packages]
    ended = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-8000:]
    return ended.stdout.splitlines()[-1]


def tempest_environment(cloud: IdentityCloud, settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Write tempest.conf for a cloud without volumes and object storage, with additional `settings` by section.

    Returns the environment variables by which tempest finds it.
    """
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
    """Run tempest's tests and return the output. Fails when a test fails."""
    command = [sys.executable, "-W", "ignore", *program, *words]
    ended = subprocess.run(command, env=environment, cwd=cloud.work, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-8000:]
    return ended.stdout
