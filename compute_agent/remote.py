"""`sixstack agent`: the agent of a computer that is not the API's. It has a credential, and no database."""

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
"""Every look is a few messages to the control plane, and what there is to do comes by itself."""
IDLE_POLL_SECONDS = 60.0
"""How long the control plane is not asked while nothing changes here."""
RETRY_SECONDS = 2.0


def join(settings: Settings, words: IO[str]) -> int:
    """Keep the credential that `sixstack host add` printed."""
    given = credential.parse(words.read().strip())
    path = settings.state / credential.FILE
    if path.exists() and credential.load(settings.state).installation.id != given.installation.id:
        raise OperatorError(f"{settings.state} belongs to another cloud. Choose another --state.")
    credential.save(settings.state, given)
    print(f"{given.name} may join; `sixstack agent --state {settings.state}` does.")  # noqa: T201
    return 0


def down(settings: Settings, *, servers: bool) -> int:
    """End the agent, and with `servers` the guests too."""
    given = credential.load(settings.state)
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
            ended = end_machines(_hypervisor(_settings(settings, given), given), settings)
    print(f"The agent is down; {ended} guests were ended.")  # noqa: T201
    return 0


def run(settings: Settings) -> int:
    """Run machines until SIGTERM. Guests go on."""
    log_context.configure()
    logging.getLogger("celery").setLevel(logging.WARNING)
    given = credential.load(settings.state)
    settings = _settings(settings, given)
    try:
        with lock_state_directory(settings.state):
            processes.write_pid_file(settings.state / "agent.pid")
            try:
                return _run(settings, given)
            finally:
                (settings.state / "agent.pid").unlink(missing_ok=True)
    except HypervisorError as error:
        raise OperatorError(str(error)) from None


def _run(settings: Settings, given: HostCredential) -> int:
    ending = threading.Event()
    authority = settings.broker_authority
    hypervisor = _hypervisor(settings, given)
    post = Publisher(given.broker_url, authority)
    answers = Queue(topology.reply_queue(given.name), no_declare=True)
    calls = RpcClient(broker.connection(given.broker_url, authority), answers, post)
    conductor = RemoteConductor(given.name, calls, post, _images(settings, given).upload)
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

    def end(*_: object) -> None:
        ending.set()
        conductor.stop()
        agent.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    calls.start()
    if not _retry_until_reachable(agent.prepare, ending):
        return 0
    clear_restart_mark(settings.state)
    metadata = MetadataService(hypervisor.segments, hypervisor.paths, hypervisor.spec)
    metadata.start()
    threads = max(settings.agent_threads, MIN_THREADS)
    worker = TaskWorker(given.broker_url, authority, given.name, threads, agent.carry_out)
    worker.start()
    dialer = ConsoleTunnels(given)
    more = {"bring_console": dialer.bring_console}
    questions = RequestServer(broker.connection(given.broker_url, authority), given.name, hypervisor, post, more)
    questions.start()
    print(f"{given.name} has joined the cloud at {given.api_url}.", flush=True)  # noqa: T201
    agent.run()
    worker.stop()
    questions.stop()
    dialer.close()
    calls.stop()
    metadata.close()
    post.close()
    return 0


def _retry_until_reachable(prepare: Callable[[], None], ending: threading.Event) -> bool:
    """Try until the control plane has answered; False when the agent is to end before that."""
    while not ending.is_set():
        try:
            prepare()
            return True
        except Unavailable as error:
            log.warning("The control plane does not answer: %s", error)
            ending.wait(RETRY_SECONDS)
    return False


def _settings(settings: Settings, given: HostCredential) -> Settings:
    authority = str(credential.authority_file(settings.state)) if given.authority else None
    return replace(settings, host_name=given.name, broker_url=given.broker_url, broker_authority=authority)


def _hypervisor(settings: Settings, given: HostCredential) -> QemuHypervisor:
    return make_hypervisor(settings, installation.load(settings), _images(settings, given))


def _images(settings: Settings, given: HostCredential) -> RemoteImages:
    return RemoteImages(given.api_url, given.name, given.secret, settings.state / "images" / "fetched")
