"""An API process without hosts, and configuration for real clients: clouds.yaml."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from app.core import installation
from app.core.settings import Settings

SYSTEM_SCOPE = {"system_scope": "all"}


@dataclass(frozen=True)
class IdentityCloud:
    """URL, working directory and credentials of a running cloud."""

    url: str
    work: Path
    clouds: dict[str, Any]

    @property
    def clouds_yaml(self) -> Path:
        """Write clouds.yaml with our clouds, `system`, and the names that openstacksdk's tests use."""
        admin, demo = self.clouds["sixstack-admin"], self.clouds["sixstack"]
        auth = {key: value for key, value in admin["auth"].items() if not key.startswith("project_")}
        system = {**admin, "auth": {**auth, **SYSTEM_SCOPE}}
        names = {
            **self.clouds,
            "system": system,
            "devstack": demo,
            "devstack-alt": demo,
            "devstack-admin": admin,
            "devstack-system-admin": system,
        }
        path = self.work / "clouds.yaml"
        path.write_text(yaml.safe_dump({"clouds": names}))
        return path

    @property
    def environment(self) -> dict[str, str]:
        """Environment for client processes."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        return {**own, "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml), "PYTHONWARNINGS": "ignore"}


@contextmanager
def identity_cloud(work: Path, **more: Any) -> Iterator[IdentityCloud]:
    """Run a new cloud in this directory on a free port with these settings; stopped at exit of the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(state=work / "state", listen=f"127.0.0.1:{port}", host_name="no-host", **more)
    installation.prepare(settings)
    environment = {**os.environ, **settings.environ()}
    subprocess.run([sys.executable, "-m", "app.bootstrap"], env=environment, check=True)
    log = (work / "api.log").open("w")
    server = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, stdout=log, stderr=log)
    log.close()
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server, work / "api.log")
        clouds = yaml.safe_load((settings.state / "clouds.yaml").read_text())["clouds"]
        yield IdentityCloud(url, work, clouds)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"{url}/identity/v3", timeout=5):
                return
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
