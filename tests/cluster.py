"""A cluster on one computer: three hosts in network namespaces, two API processes, PostgreSQL, RabbitMQ.

root namespace: API 1, API 2, PostgreSQL, RabbitMQ, and the outside world
          │
        wire ── h1, h2, h3: an agent and its guests each

`python -m tests.cluster` starts it for manual experiments (`make cluster-demo`).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from openstack.config import OpenStackConfig
from openstack.connection import Connection

from hypervisor.base import process
from tests.postgres import Postgres, postgres
from tests.rabbitmq import RabbitMQ, rabbitmq
from tests.wires import Computer, Wire, wire

SIXSTACK = Path(sys.executable).parent / "sixstack"
HOSTS = ("h1", "h2", "h3")
READY_SECONDS = 90.0


@dataclass
class Runs:
    """A foreground process with its log, which tests may kill and restart."""

    name: str
    command: list[str]
    log: Path
    ready: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when its log reports that it is ready."""
        before = self.log.read_text().count(self.ready) if self.log.exists() else 0
        with self.log.open("a") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
        until = time.monotonic() + READY_SECONDS
        while self.log.read_text().count(self.ready) <= before:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{self.name} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process and wait for its end; SIGKILL also kills its children."""
        if self.process is None:
            return
        pids = [self.process.pid, *(descendants(self.process.pid) if number == signal.SIGKILL else ())]
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        self.process.wait(60)
        self.process = None


@dataclass
class Cluster:
    """The running cluster. Tests may stop and restart `apis` and `agents`."""

    directory: Path
    wire: Wire
    database: Postgres
    broker: RabbitMQ
    apis: list[Runs]
    agents: dict[str, Runs]

    def state(self, name: str) -> Path:
        """Return the state directory of a host or an API machine."""
        return self.directory / name

    def connect(self, cloud: str = "sixstack", api: int = 0) -> Connection:
        """Return an openstacksdk connection to one of the APIs."""
        config = OpenStackConfig(config_files=[str(self.state(f"api{api + 1}") / "clouds.yaml")], load_envvars=False)
        return Connection(config=config.get_one(cloud=cloud))

    def guests(self, host: str) -> list[int]:
        """Return the process ids of the qemu processes on a host."""
        found = [process.find(path) for path in self.state(host).glob("machines/*/pid")]
        return [one.pid for one in found if one is not None]

    def lead_to(self, address: str, host: str) -> None:
        """Route packets for a guest to its host, as BGP would."""
        self.wire.route(f"{address}/128", host)


@contextmanager
def cluster(directory: Path, say: Callable[[str], None] = lambda _text: None) -> Iterator[Cluster]:
    """Start the cluster in a new directory; everything is removed afterwards, guests included."""
    directory.mkdir(mode=0o755)
    with ExitStack() as stack:
        segment = stack.enter_context(wire(HOSTS))
        say("PostgreSQL")
        database = stack.enter_context(postgres(directory / "pg"))
        say("RabbitMQ")
        broker = stack.enter_context(rabbitmq(directory / "mq", address=str(segment.here)))
        apis: list[Runs] = []
        for number, port in ((1, 8774), (2, 8784)):
            say(f"API {number} at http://[{segment.here}]:{port}")
            apis.append(_api(directory, number, f"[{segment.here}]:{port}", database, broker, apis))
            stack.callback(apis[-1].end)
            apis[-1].start()
        agents = {}
        for name, computer in segment.computers.items():
            say(f"host {name}, {computer.address}")
            agents[name] = _agent(directory, name, computer, apis[0])
            stack.callback(_remove_guests, computer, directory / name)
            stack.callback(agents[name].end)
            agents[name].start()
        yield Cluster(directory, segment, database, broker, apis, agents)


def descendants(pid: int) -> list[int]:
    """Return all descendants of a process. Guests are daemonized and not among them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _api(directory: Path, number: int, listen: str, database: Postgres, broker: RabbitMQ, others: list[Runs]) -> Runs:
    """Start an API machine. The second one shares the files of the first, as over NFS."""
    state = directory / f"api{number}"
    if others:
        first = directory / "api1"
        state.mkdir(mode=0o700)
        shutil.copy(first / "installation.json", state)
        shutil.copy(first / "clouds.yaml", state)
        for shared in ("keys", "images"):
            (state / shared).symlink_to(first / shared)
    environment = {
        "SIXSTACK_DATABASE_URL": database.url,
        "SIXSTACK_BROKER_URL": broker.url,
        "SIXSTACK_BROKER_MANAGEMENT_URL": broker.management_url,
    }
    command = [str(SIXSTACK), "up", "--no-agent", "--state", str(state), "--listen", listen]
    return Runs(f"API {number}", command, directory / f"api{number}.log", "Sixstack answers", environment)


def _agent(directory: Path, name: str, computer: Computer, api: Runs) -> Runs:
    state = directory / name
    add = [str(SIXSTACK), "host", "add", name, "--state", str(directory / "api1"), "--only-credential"]
    listen = api.command[-1]
    add += ["--api-url", f"http://{listen}"]
    environment = {**os.environ, **api.environment}
    credential = subprocess.run(add, env=environment, check=True, capture_output=True, text=True).stdout
    join = [str(SIXSTACK), "agent", "join", "--state", str(state)]
    subprocess.run(join, input=credential, check=True, capture_output=True, text=True)
    run = computer.command(SIXSTACK, "agent", "--state", state, "--uplink", "eth0", "--accelerator", "tcg", "--forward")
    return Runs(name, run, directory / f"{name}.log", "has joined the cloud")


def _remove_guests(computer: Computer, state: Path) -> None:
    subprocess.run(computer.command(SIXSTACK, "agent", "down", "--servers", "--state", state), capture_output=True)


def main() -> int:
    """Start the cluster, print how to use it, and keep it until Ctrl-C or the end of the terminal."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(*_: object) -> None:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the cleanup
        raise KeyboardInterrupt

    for number in ends:
        signal.signal(number, end)  # shells ignore SIGINT in background jobs
    with tempfile.TemporaryDirectory(prefix="sixstack-cluster-") as work:
        Path(work).chmod(0o755)
        began = time.monotonic()
        try:
            with cluster(Path(work) / "c", lambda text: print(f"==> {text}", flush=True)) as made:
                _configure(made)
                print(_advice(made, time.monotonic() - began), flush=True)
                try:
                    signal.pause()
                finally:
                    print("==> ending guests, agents, APIs, RabbitMQ and PostgreSQL", flush=True)
        except KeyboardInterrupt:
            print("==> everything has ended")
    return 0


def _advice(made: Cluster, seconds: float) -> str:
    agent = made.agents["h2"]
    ways = "; ".join(f"{name} is {computer.address}" for name, computer in made.wire.computers.items())
    return f"""
All of it runs after {seconds:.0f} s. In another shell:

    export OS_CLIENT_CONFIG_FILE={made.state("api1") / "clouds.yaml"} OS_CLOUD=sixstack-admin
    export PATH={SIXSTACK.parent}:$PATH
    openstack hypervisor list
    openstack server create --flavor tiny --image tiny --key-name cluster --min 3 --max 3 --wait many
    openstack server list --long -c Name -c Networks -c Host
    openstack console url show --novnc many-1   # its host brings it to the API's machine
    ip -6 route replace ADDRESS/128 via HOST   # {ways}
    ssh -i {made.directory / "key"} root@ADDRESS
    kill -9 {agent.process.pid if agent.process else "PID"}   # the agent of h2; half a minute later h2 is down
    {" ".join(agent.command)}   # it comes back
    tail -f {made.directory}/*.log

Ctrl-C here ends it, guests and all."""


def _configure(made: Cluster) -> None:
    """The tiny image, a key pair, and the hosts' names."""
    key = made.directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    image = Path(__file__).parents[1] / "var" / "images" / "tiny.qcow2"
    formats = {"disk_format": "qcow2", "container_format": "bare"}
    with made.connect("sixstack-admin") as admin:
        admin.create_image("tiny", data=image.read_bytes(), visibility="public", wait=True, **formats)
        admin.create_keypair("cluster", key.with_suffix(".pub").read_text().strip())


if __name__ == "__main__":
    sys.exit(main())
