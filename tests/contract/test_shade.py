"""shade, the predecessor of openstacksdk: life cycle of a server with a real guest."""

import subprocess
import sys
from pathlib import Path

from tests.contract.conftest import Cloud

PROGRAM = Path(__file__).parent / "clients/shade_life.py"


def test_shade_creates_and_deletes_a_server(cloud: Cloud) -> None:
    command = [sys.executable, "-W", "ignore", PROGRAM, cloud.state / "clouds.yaml"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    with cloud.connect() as connection:
        for server in connection.list_servers():
            connection.delete_server(server.id, wait=True)
    assert ended.returncode == 0, ended.stderr[-4000:]
