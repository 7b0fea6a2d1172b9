"""Two API processes on one PostgreSQL: consistency, restart of the database, and crashes."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from app import bootstrap
from app.core import installation
from app.core.clock import SystemClock
from app.core.errors import OperatorError
from app.core.settings import Settings
from app.db.database import Database
from app.security import keys
from compute_agent.agent import Agent
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from compute_api.hosts import hosts, liveness
from compute_api.hosts.constraints import HostConstraints
from hypervisor.fake import FakeHypervisor
from tests.contract.conftest import free_port, wait_until
from tests.postgres import USER, postgres, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

UNREACHABLE = "The service is temporarily unavailable. Try again."


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: Any


@dataclass
class Api:
    """One API process with its worker."""

    settings: Settings
    token: str = ""
    process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        environment = {**os.environ, **self.settings.environ()}
        self.process = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, start_new_session=True)
        wait_until(self._answers, seconds=60, pause=0.05)

    def kill(self) -> None:
        """Kill the process and its workers with SIGKILL."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def down(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(*self.settings.address, timeout=60)
        given = {"X-Auth-Token": self.token, "Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), given)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answer(answer.status, answer.headers, json.loads(text) if text and is_json else text)

    def log_in(self, user: str = "demo") -> Answer:
        clouds = yaml.safe_load((self.settings.state / "clouds.yaml").read_text())["clouds"].values()
        (auth,) = (one["auth"] for one in clouds if one["auth"]["username"] == user)
        domain = {"id": "default"}
        person = {"name": user, "domain": domain, "password": auth["password"]}
        identity = {"methods": ["password"], "password": {"user": person}}
        scope = {"project": {"name": user, "domain": domain}}
        return self.ask("POST", "/identity/v3/auth/tokens", {"auth": {"identity": identity, "scope": scope}})

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        with suppress(OSError):
            return self.ask("GET", "/identity/v3").status == 200
        return False


@dataclass
class Pair:
    """Two API processes, their PostgreSQL, and a fake host."""

    one: Api
    two: Api
    directory: Path
    database: Database
    conductor: LocalConductor
    hypervisor: FakeHypervisor
    image: str = ""

    def control(self, *action: str) -> None:
        """Run pg_ctl on the database."""
        program = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))[-1]
        command = ["runuser", "-u", USER, "--", str(program), "-D", str(self.directory / "data"), "-w", "-s"]
        subprocess.run([*command, *action], check=True, cwd="/", stdout=subprocess.DEVNULL)

    def stop_database(self) -> None:
        self.control("-m", "fast", "stop")

    def start_database(self) -> None:
        options = f"-k {self.directory} -c listen_addresses='' -c fsync=off"
        self.control("-l", str(self.directory / "log"), "-o", options, "start")

    def ask_database(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(host=str(self.directory), user=USER, dbname="postgres", autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def work(self) -> None:
        while waiting := self.conductor.waiting():
            for operation_id in waiting:
                if (work := self.conductor.claim(operation_id)) is not None:
                    self.conductor.finish(work, carry_out(work, self.hypervisor, 1.0))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as undo:
        root = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sixtwo")))
        root.chmod(0o755)
        server = undo.enter_context(postgres(root / "pg"))
        first = Settings(
            state=root / "one", host_name="fake", database_url=server.url, listen=f"127.0.0.1:{free_port()}"
        )
        bootstrap.prepare(first, installation.prepare(first))
        second = replace(first, state=root / "two", listen=f"127.0.0.1:{free_port()}")
        shutil.copytree(first.state, second.state)
        shutil.rmtree(second.state / "keys")
        with pytest.raises(OperatorError, match="copy keys/ and installation"):
            bootstrap.prepare(second, installation.load(second))
        (second.state / "keys").symlink_to(first.state / "keys")  # stands for a shared file system
        bootstrap.prepare(second, installation.load(second))
        database = Database(server.url)
        undo.callback(database.dispose)
        conductor = LocalConductor(database, SystemClock(), first)
        made = Pair(Api(first), Api(second), root / "pg", database, conductor, FakeHypervisor(name="fake"))
        conductor.register(made.hypervisor.describe())
        for api in (made.one, made.two):
            undo.callback(api.down)
            api.up()
            answer = api.log_in()
            assert answer.status == 201, answer
            api.token = answer.headers["X-Subject-Token"]
        image = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
        made.image = made.one.ask("POST", "/image/v2/images", image).body["id"]
        path = f"http://127.0.0.1:{first.address[1]}/image/v2/images/{made.image}/file"
        command = ["curl", "-sf", "-X", "PUT", "-H", f"X-Auth-Token: {made.one.token}"]
        command += ["-H", "Content-Type: application/octet-stream", "--data-binary", "@-", path]
        subprocess.run(command, input=bytes(1 << 20), check=True)
        yield made


def new_servers(pair: Pair, name: str, count: int = 1) -> dict[str, Any]:
    body = {"name": name, "imageRef": pair.image, "flavorRef": "1", "min_count": count, "max_count": count}
    return {"server": body}


def test_changes_of_one_process_are_visible_to_the_other_at_once(pair: Pair) -> None:
    pair.conductor.heartbeat()
    token = pair.one.log_in().headers["X-Subject-Token"]
    other = replace(pair.two, token=token)
    made = pair.one.ask("POST", "/compute/v2.1/servers", new_servers(pair, "first"))
    assert made.status == 202, made
    path = f"/compute/v2.1/servers/{made.body['server']['id']}"
    assert other.ask("GET", path).body["server"]["status"] == "BUILD"
    pair.work()
    for api in (pair.one, pair.two):
        assert api.ask("GET", path).body["server"]["status"] == "ACTIVE"
    assert pair.two.ask("PUT", path, {"server": {"name": "renamed"}}).status == 200
    assert pair.one.ask("GET", path).body["server"]["name"] == "renamed"
    network = pair.one.ask("GET", "/network/v2.0/networks").body["networks"][0]
    admin = replace(pair.two, token=pair.two.log_in("admin").headers["X-Subject-Token"])
    renamed = admin.ask("PUT", f"/network/v2.0/networks/{network['id']}", {"network": {"name": "wide"}})
    assert renamed.status == 200, renamed
    assert list(pair.one.ask("GET", path).body["server"]["addresses"]) == ["wide"]
    admin.ask("PUT", f"/network/v2.0/networks/{network['id']}", {"network": {"name": network["name"]}})

    project = pair.one.ask("GET", "/compute/v2.1/limits").body["limits"]["absolute"]
    assert project["totalInstancesUsed"] == 1
    assert pair.one.ask("DELETE", path).status == 204
    pair.work()
    assert pair.two.ask("GET", path).status == 404

    keys.rotate(pair.one.settings)
    newest = pair.two.log_in().headers["X-Subject-Token"]
    for api in (pair.one, pair.two):
        assert replace(api, token=newest).ask("GET", "/compute/v2.1/servers").status == 200
        assert replace(api, token=token).ask("GET", "/compute/v2.1/servers").status == 200
    assert pair.one.ask("DELETE", "/identity/v3/auth/tokens", **{"X-Subject-Token": token}).status == 204
    for api in (pair.two, pair.one):
        assert replace(api, token=token).ask("GET", "/compute/v2.1/servers").status == 401


def test_quota_is_enforced_across_processes(pair: Pair) -> None:
    pair.conductor.heartbeat()
    admin = replace(pair.one, token=pair.one.log_in("admin").headers["X-Subject-Token"])
    project = pair.one.log_in().body["token"]["project"]["id"]
    path = f"/compute/v2.1/os-quota-sets/{project}"
    assert admin.ask("PUT", path, {"quota_set": {"instances": 5}}).status == 200
    statuses: list[int] = []

    def create(api: Api) -> None:
        for _ in range(5):
            statuses.append(api.ask("POST", "/compute/v2.1/servers", new_servers(pair, "quota")).status)

    threads = [threading.Thread(target=create, args=(api,)) for api in (pair.one, pair.two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] * 5 + [403] * 5
    assert admin.ask("DELETE", path).status == 202
    for server in pair.two.ask("GET", "/compute/v2.1/servers").body["servers"]:
        pair.two.ask("DELETE", f"/compute/v2.1/servers/{server['id']}")
    pair.work()
    assert pair.one.ask("GET", "/compute/v2.1/servers").body["servers"] == []


def test_resources_of_hosts_are_claimed_exactly_to_the_limit(pair: Pair) -> None:
    settings, clock = pair.one.settings, SystemClock()
    names = [f"small-{number}" for number in range(3)]
    with pair.database.transaction() as session:
        for name in names:
            report = FakeHypervisor(name=name, vcpus=1, memory_mib=1000, disk_gib=1000).describe()
            hosts.register(session, clock.now(), report, settings)
    among = HostConstraints(required=tuple(names))
    taken: list[str] = []

    def claim() -> None:
        while True:
            with pair.database.transaction() as session:
                found = hosts.claim(
                    session, clock.now(), vcpus=1, memory_mib=1, disk_gib=1, zone=None, host=None, constraints=among
                )
            if found is None:
                return
            taken.append(found.name)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: taken.count(name) for name in names} == dict.fromkeys(names, int(settings.cpu_ratio))
    pair.ask_database("DELETE FROM hosts WHERE name LIKE 'small-%' RETURNING 1")


def test_conductors_with_the_same_hosts_do_not_deadlock(pair: Pair) -> None:
    settings, clock = pair.one.settings, SystemClock()
    names = [f"heard-{number}" for number in range(50)]
    with pair.database.transaction() as session:
        for name in names:
            hosts.register(session, clock.now(), FakeHypervisor(name=name).describe(), settings)
        liveness.advance_watermark(session, clock.now())
    wrong: list[Exception] = []

    def write(order: list[str]) -> None:
        try:
            for at in range(100):
                with pair.database.transaction() as session:
                    now = clock.now()
                    liveness.advance_watermark(session, now if at % 2 else None)
                    for some in (order[:25], order[25:]):
                        hosts.record_heartbeats(session, dict.fromkeys(some, now))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    pair.ask_database("DELETE FROM hosts WHERE name LIKE 'heard-%' RETURNING 1")
    pair.ask_database("DELETE FROM heartbeat_watermark RETURNING 1")


def test_services_return_503_without_database_and_recover(pair: Pair) -> None:
    assert pair.one.ask("GET", "/compute/v2.1/servers").status == 200
    before = [api.process.pid for api in (pair.one, pair.two) if api.process]
    reads = {
        "/compute/v2.1/servers": ("serviceUnavailable", {"code": 503, "message": UNREACHABLE}),
        "/volume/v3/volumes": ("serviceUnavailable", {"code": 503, "message": UNREACHABLE}),
        "/network/v2.0/ports": (
            "NeutronError",
            {"type": "HTTPServiceUnavailable", "message": UNREACHABLE, "detail": ""},
        ),
        "/identity/v3/auth/projects": (
            "error",
            {"code": 503, "title": "Service Unavailable", "message": UNREACHABLE},
        ),
        "/image/v2/images": ("message", UNREACHABLE),
    }
    pair.stop_database()
    try:
        for api in (pair.one, pair.two):
            for path, (name, fault) in reads.items():
                answer = api.ask("GET", path)
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), (path, answer)
                assert answer.body[name] == fault
            assert api.log_in().status == 503
            assert api.ask("POST", "/compute/v2.1/servers", new_servers(pair, "never")).status == 503
            assert api.ask("POST", "/image/v2/images", {"name": "never"}).status == 503
            assert api.ask("GET", "/identity/v3").status == 200
        pair.one.down()
        pair.one.up()
        assert pair.one.ask("GET", "/compute/v2.1/servers").status == 503, "the API starts without a database"
        before = [api.process.pid for api in (pair.one, pair.two) if api.process]
    finally:
        pair.start_database()
    for api in (pair.one, pair.two):
        for path in reads:
            assert api.ask("GET", path).status == 200, path
        assert api.log_in().status == 201
    pair.stop_database()
    pair.start_database()
    for api in (pair.two, pair.one):
        assert api.ask("GET", "/compute/v2.1/servers").status == 200, "pooled connections are replaced after a restart"
        assert api.ask("GET", "/compute/v2.1/servers?name=never").body["servers"] == []
    assert [api.process.pid for api in (pair.one, pair.two) if api.process] == before


def test_requests_during_a_database_restart_succeed_or_get_503(pair: Pair) -> None:
    pair.conductor.heartbeat()
    ended = threading.Event()
    statuses: list[tuple[str, int]] = []

    def ask(api: Api) -> None:
        while not ended.is_set():
            statuses.append(("GET", api.ask("GET", "/compute/v2.1/servers/detail").status))
            made = api.ask("POST", "/compute/v2.1/servers", new_servers(pair, "restart", count=2))
            statuses.append(("POST", made.status))
            if made.status == 202:
                gone = api.ask("DELETE", f"/compute/v2.1/servers/{made.body['server']['id']}")
                statuses.append(("DELETE", gone.status))

    threads = [threading.Thread(target=ask, args=(api,)) for api in (pair.one, pair.two) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            served = statuses.count(("POST", 202))
            wait_until(lambda served=served: statuses.count(("POST", 202)) > served + 4, seconds=60, pause=0.01)
            pair.stop_database()
            refused = statuses.count(("POST", 503))
            wait_until(lambda refused=refused: statuses.count(("POST", 503)) > refused, seconds=60, pause=0.01)
            pair.start_database()
            pair.conductor.heartbeat()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert {status for _, status in statuses} <= {200, 202, 204, 503}, sorted(set(statuses))
    pair.work()
    for server in pair.two.ask("GET", "/compute/v2.1/servers").body["servers"]:
        pair.two.ask("DELETE", f"/compute/v2.1/servers/{server['id']}")
    pair.work()
    assert pair.ask_database("SELECT vcpus_used, memory_mib_used FROM hosts") == [(0, 0)]
    assert pair.ask_database("SELECT instances, cores, ram FROM project_usage WHERE instances <> 0") == []


def test_completions_during_a_database_outage_are_not_lost(pair: Pair) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def before(method: str, _machine_id: str) -> None:
        if method == "ensure_running":
            begun.set()
            assert goes_on.wait(60)

    pair.hypervisor.before = before
    agent = Agent(pair.conductor, pair.hypervisor, threads=2, grace_seconds=1.0)
    agent.prepare()
    running = threading.Thread(target=agent.run)
    running.start()
    try:
        server = pair.one.ask("POST", "/compute/v2.1/servers", new_servers(pair, "meanwhile")).body["server"]
        assert begun.wait(60)
        pair.stop_database()
        goes_on.set()
        wait_until(lambda: pair.hypervisor.machines, seconds=30)
        pair.start_database()
        path = f"/compute/v2.1/servers/{server['id']}"
        wait_until(lambda: pair.two.ask("GET", path).body["server"]["status"] == "ACTIVE", seconds=60)
        assert pair.two.ask("DELETE", path).status == 204
        wait_until(lambda: pair.one.ask("GET", path).status == 404, seconds=60)
    finally:
        goes_on.set()
        pair.hypervisor.before = None
        agent.stop()
        running.join()


WRITING = "SELECT 1 FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"


def kill_while_it_writes(pair: Pair, name: str) -> None:
    """Kill the first API process with SIGKILL while it creates twenty servers."""

    def create() -> None:
        with suppress(OSError, http.client.HTTPException):
            pair.one.ask("POST", "/compute/v2.1/servers", new_servers(pair, name, count=20))

    request = threading.Thread(target=create)
    with psycopg.connect(host=str(pair.directory), user=USER, dbname="postgres", autocommit=True) as watching:
        request.start()
        wait_until(lambda: watching.execute(WRITING.encode()).fetchone() or not request.is_alive(), seconds=30, pause=0)
        pair.one.kill()
    request.join()
    wait_until(lambda: not pair.ask_database(WRITING), seconds=30)


def test_api_process_killed_in_a_request_leaves_no_partial_changes(pair: Pair) -> None:
    """The process is killed after its transaction has written rows and before it commits."""
    for attempt in range(3):
        pair.conductor.heartbeat()
        name = f"half-{attempt}"
        kill_while_it_writes(pair, name)
        found = pair.two.ask("GET", f"/compute/v2.1/servers?name={name}&limit=100").body["servers"]
        assert len(found) in (0, 20)
        count = len(pair.two.ask("GET", "/compute/v2.1/servers?limit=100").body["servers"])
        assert pair.ask_database("SELECT count(*) FROM ports WHERE device_id <> ''") == [(count,)]
        assert pair.ask_database("SELECT count(*) FROM operations WHERE state = 'queued'") == [(count,)]
        assert pair.ask_database("SELECT vcpus_used FROM hosts") == [(count,)]
        used = pair.two.ask("GET", "/compute/v2.1/limits").body["limits"]["absolute"]["totalInstancesUsed"]
        assert used == count
        pair.one.up()
        assert pair.one.ask("GET", "/compute/v2.1/servers").status == 200
