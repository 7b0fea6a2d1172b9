"""Dispatch from the control plane to hosts, over both transports: local datagrams and Celery on RabbitMQ.

Includes the isolation of remote hosts: limits of a stolen host credential.
"""

import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import amqp
import pytest
from kombu import Connection, Producer, Queue
from sqlalchemy import select

import tests.rabbitmq
from app import bootstrap
from app.commands import cli
from app.commands.rabbitmq import Management
from app.conductor_server import ConductorServer
from app.core import installation
from app.core.caller import Caller
from app.core.clock import SystemClock
from app.core.errors import Conflict, Forbidden
from app.core.settings import Settings
from app.db.database import Database
from compute_agent import host_rpc
from compute_agent.__main__ import receive_notifications
from compute_agent.agent import Agent
from compute_agent.broker_worker import RequestServer, TaskWorker
from compute_agent.conductor_client import RemoteConductor
from compute_agent.credential import HostCredential, parse
from compute_api import quotas
from compute_api.conductor.service import LocalConductor
from compute_api.flavors import flavors
from compute_api.hosts import hosts
from compute_api.models import Operation, Server
from compute_api.operations import host_removal, operations
from compute_api.rpc import broker, topology
from compute_api.rpc.calls import RpcClient
from compute_api.rpc.celery_app import make_celery
from compute_api.rpc.host_client import HostClient, LocalHostClient
from compute_api.rpc.messages import HostState
from compute_api.rpc.notify import SOCKET_NAME, LocalNotifier, Notifier
from compute_api.rpc.publisher import Publisher
from compute_api.rpc.remote_host_client import RemoteHostClient
from compute_api.rpc.task_publisher import CeleryNotifier
from compute_api.servers import creation
from compute_api.states import PowerState, VmState
from hypervisor.api.spec import MachineState
from hypervisor.fake import FakeHypervisor
from image_api.models import Image
from image_api.states import ImageStatus, Visibility
from tests.contract.conftest import wait_until
from tests.rabbitmq import RabbitMQ, rabbitmq

pytestmark = pytest.mark.xdist_group("dispatch")

CALLER = Caller(user_id="somebody", project_id="some-project", roles=frozenset({"member"}))
IMAGE = "11111111-2222-4333-8444-555555555555"
LOCAL = "here"
FAR = 3600.0
"""Polling interval in seconds: agents poll only at their start, so that later operations arrive by notification."""


@dataclass
class Rig:
    """A control plane without HTTP: the database, the notifier, the host client and a function that starts an agent."""

    settings: Settings
    database: Database
    notify: Callable[..., None]
    ask: Callable[..., Any]
    start: Callable[..., Agent]
    host: dict[str, str]
    """Input of dying_agent.py."""

    def create(self, count: int = 1, *, notified: bool = True) -> list[str]:
        """Create servers in BUILD and return their ids."""
        with self.database.transaction() as session:
            session.info["notify"] = self.notify if notified else None
            flavor = flavors.list_flavors(session, CALLER)[0]
            new = creation.NewServer(name="one", flavor_id=flavor.id, image_id=IMAGE, min_count=count, max_count=count)
            made = creation.create(session, datetime.now(UTC), CALLER, new, "req-1")
            return [server.id for server in made.servers]

    def state(self, server_id: str) -> str:
        with self.database.reading() as session:
            return str(session.scalar(select(Server.vm_state).where(Server.id == server_id)))

    def operation(self, server_id: str) -> Operation:
        with self.database.reading() as session:
            found = session.scalar(select(Operation).where(Operation.server_id == server_id))
            assert found is not None
            return found


def local_settings(state: Path) -> Settings:
    """Return the settings of a host that shares the database."""
    return Settings(state=state, host_name=LOCAL)


def prepare_database(settings: Settings) -> Database:
    bootstrap.prepare(settings, installation.prepare(settings))
    database = Database(settings.database)
    now = datetime.now(UTC)
    with database.transaction() as session:
        quotas.set_limits(session, "some-project", {"instances": -1, "cores": -1, "ram": -1})
        formats = {"disk_format": "qcow2", "container_format": "bare", "stored_format": "qcow2"}
        sizes = dict.fromkeys(("size", "virtual_size", "disk_size"), 1 << 20)
        session.add(
            Image(
                id=IMAGE,
                name="image",
                owner="some-project",
                status=ImageStatus.ACTIVE,
                visibility=Visibility.PRIVATE,
                created_at=now,
                updated_at=now,
                **formats,
                **sizes,
            )
        )
    return database


def broker_settings(state: Path, made: RabbitMQ, authority: Path | None = None) -> Settings:
    """Return the settings of a control plane without a local host."""
    urls = {"broker_url": made.url, "broker_management_url": made.management_url}
    return Settings(state=state, agent=False, broker_authority=str(authority) if authority else None, **urls)


@pytest.fixture(scope="session")
def mq() -> Iterator[RabbitMQ]:
    if reason := tests.rabbitmq.why_not():
        pytest.skip(reason)
    with tests.rabbitmq.place() as place, rabbitmq(place / "mq") as made:
        yield made


def credential(settings: Settings, host: str, capsys: pytest.CaptureFixture[str]) -> HostCredential:
    """Run `sixstack host add` and return the printed credential."""
    environment = {
        "SIXSTACK_BROKER_URL": settings.broker_url,
        "SIXSTACK_BROKER_MANAGEMENT_URL": settings.broker_management_url,
        "SIXSTACK_BROKER_AUTHORITY": settings.broker_authority,
    }
    with patch.dict(os.environ, {name: value for name, value in environment.items() if value is not None}):
        words = [
            "host",
            "add",
            host,
            "--state",
            str(settings.state),
            "--api-url",
            "http://[::1]:1",
            "--only-credential",
        ]
        assert cli.main(words) == 0
    return parse(capsys.readouterr().out)


def start_agent(agent: Agent, stack: ExitStack) -> Agent:
    agent.prepare()
    thread = threading.Thread(target=agent.run)
    thread.start()
    stack.callback(thread.join)
    stack.callback(agent.stop)
    return agent


def local_agent(settings: Settings, hypervisor: FakeHypervisor, stack: ExitStack) -> Agent:
    """Start an agent on the API's computer."""
    database = Database(settings.database)
    stack.callback(database.dispose)
    conductor = LocalConductor(database, SystemClock(), settings)
    agent = Agent(conductor, hypervisor, threads=4, grace_seconds=1, poll_seconds=FAR, reconcile_seconds=FAR)
    start_agent(agent, stack)
    receive_notifications(settings.state / SOCKET_NAME, agent)
    stack.callback(host_rpc.serve(settings.state, hypervisor))
    return agent


def remote_agent(given: HostCredential, authority: str | None, hypervisor: FakeHypervisor, stack: ExitStack) -> Agent:
    """Start an agent with the broker as its only connection to the control plane, as on a remote host."""
    post = Publisher(given.broker_url, authority)
    stack.callback(post.close)
    queue = Queue(topology.reply_queue(given.name), no_declare=True)
    calls = RpcClient(broker.connection(given.broker_url, authority), queue, post)
    calls.start()
    stack.callback(calls.stop)
    conductor = RemoteConductor(given.name, calls, post, lambda _image, _file: None)
    agent = Agent(conductor, hypervisor, threads=4, grace_seconds=1, poll_seconds=FAR, reconcile_seconds=FAR)
    start_agent(agent, stack)
    worker = TaskWorker(given.broker_url, authority, given.name, 8, agent.carry_out)
    worker.start()
    stack.callback(worker.stop)
    request_server = RequestServer(broker.connection(given.broker_url, authority), given.name, hypervisor, post)
    request_server.start()
    stack.callback(request_server.stop)
    return agent


def celery_notify(url: str, authority: str | None, stack: ExitStack) -> CeleryNotifier:
    made = CeleryNotifier(make_celery(url, authority))
    stack.callback(made.close)
    return made


def conductor_server(settings: Settings, database: Database, stack: ExitStack) -> ConductorServer:
    assert settings.broker_url is not None
    post = Publisher(settings.broker_url, settings.broker_authority)
    connection = broker.connection(settings.broker_url, settings.broker_authority)
    server = ConductorServer(connection, post, database, SystemClock(), settings, lambda *_: None)
    server.start()
    stack.callback(post.close)
    stack.callback(server.stop)
    return server


@pytest.fixture(params=["local", "celery"])
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str], mq: RabbitMQ
) -> Iterator[Rig]:
    with ExitStack() as stack:
        if request.param == "local":
            settings = local_settings(tmp_path / "state")
            database = prepare_database(settings)
            host_input = {"state": str(settings.state)}

            def start(hypervisor: FakeHypervisor, inner: ExitStack) -> Agent:
                hypervisor.name = LOCAL
                return local_agent(settings, hypervisor, inner)

            notify = Notifier(LOCAL, LocalNotifier(settings.state), None)
            ask = HostClient(LOCAL, LocalHostClient(settings.state), None)
        else:
            settings = broker_settings(tmp_path / "state", mq)
            database = prepare_database(settings)
            host = f"host-{os.urandom(3).hex()}"
            given = credential(settings, host, capsys)
            host_input = {"credential": given.document()}
            conductor_server(settings, database, stack)

            def start(hypervisor: FakeHypervisor, inner: ExitStack) -> Agent:
                hypervisor.name = host
                return remote_agent(given, None, hypervisor, inner)

            notify = Notifier(None, LocalNotifier(settings.state), celery_notify(mq.url, None, stack))
            remote_ask = RemoteHostClient(mq.url, None)
            stack.callback(remote_ask.close)
            ask = HostClient(None, LocalHostClient(settings.state), remote_ask)
        stack.callback(database.dispose)
        yield Rig(settings, database, notify, ask, start, host_input)


def test_notified_operations_run_once_and_are_reported(rig: Rig) -> None:
    hypervisor = FakeHypervisor()
    with ExitStack() as stack:
        rig.start(hypervisor, stack)
        made = rig.create(20)
        for server_id in made[::2]:  # notified three times in total
            rig.notify(hypervisor.name, [rig.operation(server_id).id] * 2)
        wait_until(lambda: all(rig.state(one) == VmState.ACTIVE for one in made), seconds=60, pause=0.02)
        assert {one.id: one.state for one in hypervisor.reports()} == dict.fromkeys(made, MachineState.RUNNING)
        assert all(machine.starts == 1 for machine in hypervisor.machines.values())


def test_operations_of_a_killed_agent_are_done_by_the_next(rig: Rig) -> None:
    command = [sys.executable, "-m", "tests.contract.dying_agent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as dying:
        try:
            assert dying.stdin is not None
            assert dying.stdout is not None
            print(json.dumps(rig.host), file=dying.stdin, flush=True)
            assert dying.stdout.readline() == "ready\n"
            (made,) = rig.create()
            assert dying.stdout.readline() == "begun\n"
            assert rig.operation(made).state == "running"
        finally:
            dying.kill()
    with ExitStack() as stack:
        second = FakeHypervisor()
        rig.start(second, stack)
        wait_until(lambda: rig.state(made) == VmState.ACTIVE, seconds=60, pause=0.02)
        assert [one.id for one in second.reports()] == [made]
        assert rig.operation(made).attempts == 2


def test_starting_agent_finds_operations_without_notification(rig: Rig) -> None:
    with ExitStack() as stack:
        rig.start(FakeHypervisor(), stack)
    made = rig.create(notified=False)
    assert rig.operation(made[0]).state == "queued"
    with ExitStack() as stack:
        rig.start(FakeHypervisor(), stack)
        wait_until(lambda: rig.state(made[0]) == VmState.ACTIVE, seconds=60, pause=0.02)


def test_host_calls_return_results_and_errors(rig: Rig) -> None:
    hypervisor = FakeHypervisor()
    with ExitStack() as stack:
        rig.start(hypervisor, stack)
        made = rig.create()
        wait_until(lambda: rig.state(made[0]) == VmState.ACTIVE, seconds=60, pause=0.02)
        hypervisor.machines[made[0]].console = b"hello\n"
        assert rig.ask(hypervisor.name, "console_log", made[0]) == "hello\n"
        with pytest.raises(Conflict):
            rig.ask(hypervisor.name, "diagnostics", "no-such-machine")


@dataclass
class TwoHosts:
    """A control plane, an honest host with a server, and the stolen credential of another host."""

    rig: Rig
    honest: HostCredential
    stolen: HostCredential
    server: str
    conductors: ConductorServer

    def conductor(self, stack: ExitStack) -> RemoteConductor:
        """Return a conductor that uses the stolen credential."""
        return connect_conductor(self.stolen, stack)


def connect_conductor(given: HostCredential, stack: ExitStack) -> RemoteConductor:
    """Return the remote conductor of a host that has no agent."""
    post = Publisher(given.broker_url, None)
    queue = Queue(topology.reply_queue(given.name), no_declare=True)
    calls = RpcClient(broker.connection(given.broker_url), queue, post)
    calls.start()
    stack.callback(post.close)
    stack.callback(calls.stop)
    return RemoteConductor(given.name, calls, post, lambda _image, _file: None)


@pytest.fixture
def two(tmp_path: Path, capsys: pytest.CaptureFixture[str], mq: RabbitMQ) -> Iterator[TwoHosts]:
    settings = broker_settings(tmp_path / "state", mq)
    database = prepare_database(settings)
    tag = os.urandom(3).hex()
    honest, stolen = (credential(settings, f"{name}-{tag}", capsys) for name in ("honest", "stolen"))
    with ExitStack() as stack:
        stack.callback(database.dispose)
        conductors = conductor_server(settings, database, stack)
        remote_agent(honest, None, FakeHypervisor(name=honest.name), stack)
        notify = Notifier(None, LocalNotifier(settings.state), celery_notify(mq.url, None, stack))
        rig = Rig(settings, database, notify, lambda: None, lambda: None, {})
        server = rig.create()[0]
        wait_until(lambda: rig.state(server) == VmState.ACTIVE, seconds=60, pause=0.02)
        yield TwoHosts(rig, honest, stolen, server, conductors)


def test_stolen_credential_opens_no_other_queue_or_exchange(two: TwoHosts) -> None:
    for queue in (topology.task_queue, topology.request_queue, topology.reply_queue):
        with Connection(two.stolen.broker_url) as connection, pytest.raises(amqp.AccessRefused):
            connection.default_channel.basic_get(queue(two.honest.name))
    for queue in (topology.CONDUCTOR, topology.HEARTBEATS):
        with Connection(two.stolen.broker_url) as connection, pytest.raises(amqp.AccessRefused):
            connection.default_channel.basic_get(queue)
    elsewhere = [
        (topology.host_exchange(two.honest.name), topology.KEY_CONDUCTOR),
        ("", topology.task_queue(two.honest.name)),
        ("", topology.CONDUCTOR),
        ("amq.direct", "x"),
        (topology.host_exchange(two.stolen.name), "anything.else"),
    ]
    for exchange, key in elsewhere:
        confirmed = Connection(two.stolen.broker_url, transport_options={"confirm_publish": True})
        with confirmed as connection, pytest.raises(amqp.AccessRefused):
            Producer(connection.default_channel).publish({}, exchange=exchange, routing_key=key)
    with Connection(two.stolen.broker_url) as connection, pytest.raises(amqp.AccessRefused):
        connection.default_channel.queue_declare("new")


def test_stolen_credential_reaches_no_server_of_another_host(two: TwoHosts) -> None:
    operation = two.rig.operation(two.server)
    with two.rig.database.transaction() as session:
        server = session.scalar(select(Server).where(Server.id == two.server))
        assert server is not None
        queued = operations.queue(session, datetime.now(UTC), server, "powering-off", "req-2", {})
        session.flush()
        waiting = queued.id
    with ExitStack() as stack:
        conductor = two.conductor(stack)
        assert conductor.spec(two.server) is None
        assert conductor.waiting() == []
        assert conductor.host_state() == HostState([], [], [], [], frozenset())
        assert conductor.claim(waiting) is None
        conductor.release(operation.id)
        conductor._request_with_retries("report", operation_id=waiting, result={"error": "mine now"})
        wanted = next(iter(LocalConductor(two.rig.database, SystemClock(), _as(two, two.honest)).host_state().servers))
        conductor.report_state(wanted, VmState.ERROR, PowerState.NOSTATE, "mine now")
        with pytest.raises(Conflict, match="may not report as"):
            conductor.register(FakeHypervisor(name=two.honest.name).describe())
        with pytest.raises(Conflict, match="Invalid request"):
            conductor._request("_database")
        with pytest.raises(Conflict, match="Invalid request"):
            conductor._request("claim", operation_id=waiting, host=two.honest.name)
    assert two.rig.state(two.server) == VmState.ACTIVE
    with two.rig.database.reading() as session:
        found = session.get(Operation, waiting)
        assert found is not None
        # Its own host may have reconciled in the meantime and superseded the operation.
        assert found.state in ("queued", "superseded")
        assert found.error is None


def _as(two: TwoHosts, given: HostCredential) -> Settings:
    return replace(two.rig.settings, host_name=given.name)


def test_flood_of_requests_does_not_delay_other_hosts(
    two: TwoHosts, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings, many = two.rig.settings, 3000
    given = credential(settings, f"third-{os.urandom(3).hex()}", capsys)
    with ExitStack() as stack:
        third = connect_conductor(given, stack)
        assert third.host_state().servers == []
        flooding = stack.enter_context(broker.connection(two.stolen.broker_url, confirmed=False))
        producer = Producer(flooding.default_channel)
        for number in range(many):
            up, key = topology.host_exchange(two.stolen.name), topology.KEY_CONDUCTOR
            producer.publish({"ask": "host_state"}, exchange=up, routing_key=key, correlation_id=str(number))
        assert third.host_state().servers == []
        assert settings.broker_url is not None
        with broker.connection(settings.broker_url) as connection:
            answered = connection.default_channel.queue_declare(topology.reply_queue(two.stolen.name), passive=True)
            assert answered.message_count < many, "a later request of another host is served before the backlog"
        two.conductors.write_heartbeats()
    assert f"Host {two.stolen.name} exceeds its request queue" in caplog.text


def test_compressed_messages_of_hosts_are_refused(two: TwoHosts, caplog: pytest.LogCaptureFixture) -> None:
    bomb = zlib.compress(json.dumps({"ask": "host_state", "more": "0" * (64 << 20)}).encode())
    with ExitStack() as stack:
        conductor = two.conductor(stack)
        producer = Producer(stack.enter_context(broker.connection(two.stolen.broker_url)).default_channel)
        json_in_zlib = {"content_type": "application/json", "content_encoding": "utf-8"}
        headers = {"compression": "application/x-gzip"}
        target = {
            "exchange": topology.host_exchange(two.stolen.name),
            "routing_key": topology.KEY_CONDUCTOR,
            "correlation_id": "1",
        }
        producer.publish(bomb, headers=headers, **json_in_zlib, **target)
        assert conductor.host_state().servers == []
    assert "Compressed messages are not accepted" in caplog.text


class Killed(BaseException):
    """Simulates kill -9: passes every `except Exception`, so only the database and the broker keep state."""


def remove(two: TwoHosts, *words: str) -> int:
    """Run `sixstack host remove` and return its exit status."""
    settings = two.rig.settings
    urls = {
        "SIXSTACK_BROKER_URL": str(settings.broker_url),
        "SIXSTACK_BROKER_MANAGEMENT_URL": str(settings.broker_management_url),
    }
    with patch.dict(os.environ, urls):
        return cli.main(["host", "remove", *words, "--state", str(settings.state)])


def names_of_hosts(two: TwoHosts) -> set[str]:
    with two.rig.database.reading() as session:
        return {host.name for host in hosts.list_hosts(session)}


def test_removed_host_is_locked_out_after_interrupted_removal(
    two: TwoHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    name = two.stolen.name
    with ExitStack() as stack:
        conductor = two.conductor(stack)
        conductor.register(FakeHypervisor(name=name, memory_mib=1 << 20).describe())
        for owner, step in ((Management, "remove_user"), (broker, "remove_host"), (host_removal, "delete_record")):
            with patch.object(owner, step, side_effect=Killed), pytest.raises(Killed):
                remove(two, name)
            assert name in names_of_hosts(two), "an unfinished removal stays visible"
            made = two.rig.create()[0]
            assert two.rig.operation(made).host == two.honest.name, "the scheduler excludes the host"
            if step == "remove_user":
                assert conductor.host_state().servers == []
    with pytest.raises(amqp.AccessRefused), Connection(two.stolen.broker_url) as connection:
        connection.connect()
    assert remove(two, name) == 0
    assert names_of_hosts(two) == {two.honest.name}
    assert remove(two, name) == 1
    assert f"There is no host {name}." in capsys.readouterr().err
    late = LocalConductor(two.rig.database, SystemClock(), _as(two, two.stolen), require_credential=True)
    with pytest.raises(Forbidden):
        late.register(FakeHypervisor(name=name).describe())


def test_host_with_servers_is_removed_only_when_forced_and_down(
    two: TwoHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    name = two.honest.name
    assert remove(two, name) == 1
    assert "has 1 server" in capsys.readouterr().err
    assert remove(two, name, "--force") == 1
    assert "is not known to be down" in capsys.readouterr().err
    with two.rig.database.transaction() as session:
        hosts.find(session, name).forced_down = True
    assert remove(two, name, "--force") == 0
    assert "1 server that it had is in ERROR" in capsys.readouterr().out
    assert names_of_hosts(two) == set()
    with two.rig.database.reading() as session:
        server = session.query(Server).one()
        assert (server.vm_state, server.task_state, server.host) == (VmState.ERROR, None, None)
        assert name in server.fault["message"]
    with pytest.raises(amqp.AccessRefused), Connection(two.honest.broker_url) as connection:
        connection.connect()


def test_hosts_join_over_tls_and_only_with_the_right_authority(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := tests.rabbitmq.why_not():
        pytest.skip(reason)
    with ExitStack() as stack:
        place = stack.enter_context(tests.rabbitmq.place())
        authority, certificate, key = tests.rabbitmq.certificates(place)
        secure = stack.enter_context(rabbitmq(place / "mq", tls=(authority, certificate, key)))
        settings = broker_settings(tmp_path / "state", secure, authority)
        database = prepare_database(settings)
        stack.callback(database.dispose)
        given = credential(settings, "over-tls", capsys)
        assert given.broker_url.startswith("amqps://")
        assert given.authority == authority.read_text()
        conductor_server(settings, database, stack)
        remote_agent(given, str(authority), FakeHypervisor(name="over-tls"), stack)
        notify = Notifier(None, LocalNotifier(settings.state), celery_notify(secure.url, str(authority), stack))
        rig = Rig(settings, database, notify, lambda: None, lambda: None, {})
        server = rig.create()[0]
        wait_until(lambda: rig.state(server) == VmState.ACTIVE, seconds=60, pause=0.02)
        with pytest.raises(Exception, match="certificate"), broker.connection(secure.url) as connection:
            connection.connect()
