"""`sixstack agent`: the agent of a remote host, which has a credential and no database."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from kombu import Queue

from app.core import installation, log_context, processes
from app.core.errors import OperatorError, Unavailable
from app.core.settings import Settings
from compute_agent import credential
from compute_agent.agent import MIN_THREADS, Agent
from compute_agent.broker_worker import RequestServer, TaskWorker
from compute_agent.conductor_client import RemoteConductor
from compute_agent.console_tunnel import ConsoleTunnels
from compute_agent.credential import HostCredential
from compute_agent.host_config import clear_restart_mark, lock_state_directory, make_hypervisor, should_restart_machines
from compute_agent.images.remote import RemoteImages
from compute_agent.shutdown import end_machines
from compute_api.rpc import broker, topology
from compute_api.rpc.calls import RpcClient
from compute_api.rpc.publisher import Publisher
from hypervisor.api.errors import HypervisorError
from hypervisor.driver import QemuHypervisor
from hypervisor.guest_data.metadata import MetadataService

log = logging.getLogger("compute_agent")

POLL_SECONDS = 15.0
"""Each poll is a few messages to the control plane; operations arrive by themselves."""
IDLE_POLL_SECONDS = 60.0
"""Interval between polls while nothing changes on this host."""
RETRY_SECONDS = 2.0


def join(settings: Settings, text: IO[str]) -> int:
    """Save the credential that `sixstack host add` printed."""
    host_credential = credential.parse(text.read().strip())
    path = settings.state / credential.FILE
    if path.exists() and credential.load(settings.state).installation.id != host_credential.installation.id:
        raise OperatorError(f"{settings.state} belongs to another cloud. Use a different --state.")
    credential.save(settings.state, host_credential)
    command = f"sixstack agent --state {settings.state}"
    print(f"Saved the credential of {host_credential.name}. Start the agent with `{command}`.")  # noqa: T201
    return 0


def down(settings: Settings, *, servers: bool) -> int:
    """Stop the agent and, with `servers`, the guests."""
    host_credential = credential.load(settings.state)
    pid = processes.read_pid_file(settings.state / "agent.pid")
    if pid is not None:
        start = processes.start_time(pid)
        os.kill(pid, signal.SIGTERM)
        pause = threading.Event()
        while processes.start_time(pid) == start and start is not None:
            pause.wait(0.05)
    ended = 0
    if servers:
        with lock_state_directory(settings.state):
            ended = end_machines(_hypervisor(_settings(settings, host_credential), host_credential), settings)
    print(f"The agent is down; {ended} guests were stopped.")  # noqa: T201
    return 0


def run(settings: Settings) -> int:
    """Run the agent until SIGTERM. Guests keep running."""
    log_context.configure()
    logging.getLogger("celery").setLevel(logging.WARNING)
    host_credential = credential.load(settings.state)
    settings = _settings(settings, host_credential)
    try:
        with lock_state_directory(settings.state):
            processes.write_pid_file(settings.state / "agent.pid")
            try:
                return _run(settings, host_credential)
            finally:
                (settings.state / "agent.pid").unlink(missing_ok=True)
    except HypervisorError as error:
        raise OperatorError(str(error)) from None


def _run(settings: Settings, host_credential: HostCredential) -> int:
    stopping = threading.Event()
    authority = settings.broker_authority
    hypervisor = _hypervisor(settings, host_credential)
    publisher = Publisher(host_credential.broker_url, authority)
    replies = Queue(topology.reply_queue(host_credential.name), no_declare=True)
    client = RpcClient(broker.connection(host_credential.broker_url, authority), replies, publisher)
    conductor = RemoteConductor(host_credential.name, client, publisher, _images(settings, host_credential).upload)
    agent = Agent(
        conductor,
        hypervisor,
        threads=settings.agent_threads,
        grace_seconds=settings.soft_reboot_seconds,
        restart_stopped=should_restart_machines(settings.state),
        poll_seconds=POLL_SECONDS,
        reconcile_seconds=POLL_SECONDS,
        idle_seconds=IDLE_POLL_SECONDS,
    )

    def stop(*_: object) -> None:
        stopping.set()
        conductor.stop()
        agent.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    client.start()
    if not _retry_until_reachable(agent.prepare, stopping):
        return 0
    clear_restart_mark(settings.state)
    metadata = MetadataService(hypervisor.segments, hypervisor.paths, hypervisor.spec)
    metadata.start()
    threads = max(settings.agent_threads, MIN_THREADS)
    worker = TaskWorker(host_credential.broker_url, authority, host_credential.name, threads, agent.carry_out)
    worker.start()
    tunnels = ConsoleTunnels(host_credential)
    more = {"bring_console": tunnels.bring_console}
    requests = RequestServer(
        broker.connection(host_credential.broker_url, authority), host_credential.name, hypervisor, publisher, more
    )
    requests.start()
    print(f"{host_credential.name} has joined the cloud at {host_credential.api_url}.", flush=True)  # noqa: T201
    agent.run()
    worker.stop()
    requests.stop()
    tunnels.close()
    client.stop()
    metadata.close()
    publisher.close()
    return 0


def _retry_until_reachable(prepare: Callable[[], None], stopping: threading.Event) -> bool:
    """Call `prepare` until the control plane responds; returns False when the agent is stopped first."""
    while not stopping.is_set():
        try:
            prepare()
            return True
        except Unavailable as error:
            log.warning("Control plane unreachable, retrying: %s", error)
            stopping.wait(RETRY_SECONDS)
    return False


def _settings(settings: Settings, host_credential: HostCredential) -> Settings:
    authority = str(credential.authority_file(settings.state)) if host_credential.authority else None
    return replace(
        settings, host_name=host_credential.name, broker_url=host_credential.broker_url, broker_authority=authority
    )


def _hypervisor(settings: Settings, host_credential: HostCredential) -> QemuHypervisor:
    return make_hypervisor(settings, installation.load(settings), _images(settings, host_credential))


def _images(settings: Settings, host_credential: HostCredential) -> RemoteImages:
    return RemoteImages(
        host_credential.api_url, host_credential.name, host_credential.secret, settings.state / "images" / "fetched"
    )
