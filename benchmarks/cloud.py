"""Cloud under test: the API without an agent; servers exist only in the database."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import yaml
from sqlalchemy import update

from app import bootstrap
from app.core import installation
from app.core.caller import Caller
from app.core.settings import Settings
from app.db.database import Database
from benchmarks.load import Client
from compute_api.flavors import flavors
from compute_api.hosts import hosts
from compute_api.models import Heartbeat, Host, Operation, Server
from compute_api.servers import creation
from compute_api.states import PowerState, VmState
from hypervisor.fake import FakeHypervisor
from image_api.models import Image
from image_api.states import ImageStatus, Visibility

ROOT = Path(__file__).parent.parent
HOST = "benchmark-host"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], environment: Mapping[str, str], port: int) -> Iterator[int]:
    """Run a server process; yields its pid once it listens on the port."""
    made = subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if made.poll() is not None:
                raise SystemExit(f"{command[2]} ended with {made.returncode}")
            time.sleep(0.05)
        yield made.pid
    finally:
        made.send_signal(signal.SIGTERM)
        made.wait(30)


def prepare(state: Path, port: int) -> Settings:
    """Create an installation and return its settings."""
    settings = Settings(state=state, listen=f"127.0.0.1:{port}", host_name=HOST)
    bootstrap.prepare(settings, installation.prepare(settings))
    return settings


def token(settings: Settings, name: str) -> tuple[str, str]:
    """Log in as a bootstrapped user; returns the token and the id of its project."""
    auth = yaml.safe_load((settings.state / "clouds.yaml").read_text())["clouds"][name]["auth"]
    user = {"name": auth["username"], "domain": {"id": "default"}, "password": auth["password"]}
    scope = {"project": {"name": auth["project_name"], "domain": {"id": "default"}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    connection = Client(settings.address[1])
    connection._connection.request("POST", "/identity/v3/auth/tokens", orjson.dumps(body))
    answer = connection._connection.getresponse()
    parsed = orjson.loads(answer.read())
    subject = answer.getheader("X-Subject-Token")
    assert subject is not None
    return subject, parsed["token"]["project"]["id"]


def populate(settings: Settings, project_id: str, count: int) -> str:
    """Insert a host that never goes down, an image, and `count` ACTIVE servers of the project; returns the image id."""
    database = Database(settings.database)
    caller = Caller(user_id="benchmark", project_id=project_id, roles=frozenset({"member"}))
    now = datetime.now(UTC)
    image_id = "11111111-2222-4333-8444-555555555555"
    with database.transaction() as session:
        hosts.register(session, now, FakeHypervisor(name=HOST).describe(), settings)
        room = {"vcpus_limit": 2**30, "memory_mib_limit": 2**30, "disk_gib_limit": 2**30}
        session.execute(update(Host).values(**room))
        session.execute(update(Heartbeat).values(last_seen=now + timedelta(days=1)))
        from compute_api import quotas

        quotas.set_limits(session, project_id, {"instances": -1, "cores": -1, "ram": -1})
        session.add(
            Image(
                id=image_id,
                name="benchmark",
                owner=project_id,
                status=ImageStatus.ACTIVE,
                visibility=Visibility.PRIVATE,
                disk_format="qcow2",
                container_format="bare",
                stored_format="qcow2",
                size=1 << 20,
                virtual_size=1 << 20,
                disk_size=1 << 20,
                created_at=now,
                updated_at=now,
            )
        )
        session.flush()
        flavor = flavors.list_flavors(session, caller)[0]
        new = creation.NewServer(
            name="server",
            flavor_id=flavor.id,
            image_id=image_id,
            metadata={"groups": "ci", "nodepool_node_id": "0123456789", "nodepool_provider_name": "sixstack"},
            min_count=count,
            max_count=count,
        )
        creation.create(session, now, caller, new, "req-benchmark")
        done = {"vm_state": VmState.ACTIVE, "task_state": None, "power_state": PowerState.RUNNING, "launched_at": now}
        session.execute(update(Server).values(**done).execution_options(synchronize_session=False))
        session.execute(update(Operation).values(state="done").execution_options(synchronize_session=False))
    database.dispose()
    return image_id


@contextmanager
def api(settings: Settings) -> Iterator[int]:
    """Run the API without an agent; yields its pid."""
    with process([sys.executable, "-m", "app.server"], settings.environ(), settings.address[1]) as pid:
        yield pid
