"""Agent process beside the database: `python -m compute_agent`, started by `sixstack up`, with settings in
SIXSTACK_*."""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from app.core import installation, log_context, processes
from app.core.clock import SystemClock
from app.core.errors import OperatorError
from app.core.settings import Settings
from app.db.database import Database
from app.security import privileges
from compute_agent import host_rpc
from compute_agent.agent import Agent
from compute_agent.host_config import clear_restart_mark, lock_state_directory, make_hypervisor, should_restart_machines
from compute_api.conductor.service import LocalConductor
from compute_api.operations.purge import PurgeThread
from compute_api.rpc.driver import make_remote_clients
from compute_api.rpc.notify import SOCKET_NAME, LocalNotifier, Notifier, short_socket_path
from hypervisor.api.errors import HypervisorError
from hypervisor.guest_data.metadata import MetadataService

log = logging.getLogger("compute_agent")


def main() -> int:
    """Run until SIGTERM. Prints one line and returns 1 when the host is unfit."""
    log_context.configure()
    processes.end_with_parent()
    settings = Settings.read({})
    try:
        with lock_state_directory(settings.state):
            return _run(settings)
    except (HypervisorError, OperatorError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


def _run(settings: Settings) -> int:
    database = Database(settings.database, synchronous=settings.sqlite_synchronous)
    chosen = installation.load(settings)
    hypervisor = make_hypervisor(settings, chosen)
    account = privileges.account(settings, chosen)
    client_uid = os.geteuid() if account is None else account.uid
    notify = Notifier(settings.host_name, LocalNotifier(settings.state), make_remote_clients(settings)[0])
    agent = Agent(
        LocalConductor(database, SystemClock(), settings, notify=notify, reap_other_hosts=True),
        hypervisor,
        threads=settings.agent_threads,
        grace_seconds=settings.soft_reboot_seconds,
        restart_stopped=should_restart_machines(settings.state),
    )
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    signal.signal(signal.SIGINT, lambda *_: agent.stop())
    agent.prepare()
    clear_restart_mark(settings.state)
    close_rpc = host_rpc.serve(settings.state, hypervisor, client_uid)
    metadata = MetadataService(hypervisor.segments, hypervisor.paths, hypervisor.spec)
    metadata.start()
    receive_notifications(settings.state / SOCKET_NAME, agent, client_uid)
    (settings.state / "agent.ready").write_text(str(os.getpid()))
    purge_thread = PurgeThread(database, SystemClock(), 0 if settings.broker_url else settings.keep_deleted_days)
    purge_thread.start()  # with remote hosts the conductor purges
    agent.run()
    purge_thread.stop()
    close_rpc()
    metadata.close()
    (settings.state / SOCKET_NAME).unlink(missing_ok=True)
    (settings.state / "agent.ready").unlink(missing_ok=True)
    database.dispose()
    return 0


def receive_notifications(path: Path, agent: Agent, sender: int | None = None) -> None:
    """Receive notifications from processes of the user `sender`, by default our own, in a thread."""
    path.unlink(missing_ok=True)
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with short_socket_path(path) as name:
        notifications.bind(name)
    path.chmod(0o600)
    if sender is not None:
        os.chown(path, sender, -1)

    def receive() -> None:
        while True:
            notifications.recv(1 << 16)
            agent.notify()

    threading.Thread(target=receive, name="notifications", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
