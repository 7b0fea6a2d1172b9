"""Supervisor (`sixstack up`, `sixstack down`): prepares the installation, starts, restarts and stops its processes.

The supervisor serves no requests. Guests are daemonized, so they continue when the supervisor and its children end.
"""

import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.core import installation, log_context, processes
from app.core.errors import OperatorError
from app.core.settings import Settings
from app.dns import settings as dns_settings
from app.dns import status as dns_status
from app.security import privileges

log = logging.getLogger("sixstack")

READY_SECONDS = 60.0
END_SECONDS = 90.0
PORT_SECONDS = 5.0
RESTART_SECONDS = 1.0


@dataclass
class Child:
    """A child process and how to restart it; `starts` are monotonic times."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)


def up(settings: Settings) -> int:
    """Run the cloud until SIGTERM or SIGINT. Raises OperatorError."""
    log_context.configure()
    _check_host(settings)
    with _exclusive_lock(settings), _port(settings):
        pass
    installation.prepare(settings)
    with _exclusive_lock(settings):
        processes.write_pid_file(settings.state / "up.pid")
        environment = {**os.environ, **settings.environ(), "SIXSTACK_STATE": str(settings.state.absolute())}
        environment.pop(processes.NOTIFY_SOCKET, None)
        _prepare_database(environment)
        who = privileges.account(settings, installation.load(settings))
        privileges.change_owners(settings, who)
        children = make_children(settings)
        if who is not None:
            _drop_privileges(settings, children, who, environment)
        dns_status.remove(settings)
        try:
            return _run(settings, children, environment)
        finally:
            _end(children)
            (settings.state / "up.pid").unlink(missing_ok=True)
            (settings.state / "up.url").unlink(missing_ok=True)
            dns_status.remove(settings)


def make_children(settings: Settings) -> list[Child]:
    """Return the processes for these settings, in the order of starting."""
    modules = {"API": "app.server"}
    if settings.broker_url:
        modules = {"conductor": "app.conductor_server"} | modules
    if settings.agent:
        modules = {"agent": "compute_agent"} | modules
    if settings.agent or settings.broker_url:
        modules["console proxy"] = "app.consoles"
    if dns_settings.is_sync_enabled(settings):
        modules["dns sync"] = "app.commands.dns"
    return [Child(name, [sys.executable, "-m", module]) for name, module in modules.items()]


def _drop_privileges(
    settings: Settings, children: list[Child], who: privileges.Account, environment: dict[str, str]
) -> None:
    """Change the commands of all children except the agent to run as the account. Raises OperatorError."""
    variables = privileges.copy_root_files(settings, who) | {"HOME": str(settings.api_directory.absolute())}
    privileges.compile_bytecode()
    privileges.check(settings, who, {**environment, **variables})
    ports = {"API": settings.address[1], "console proxy": settings.console_address[1]}
    for child in children:
        if child.name != "agent":
            child.command = privileges.command(settings, who, child.command, port=ports.get(child.name))
            child.environment = variables


def _run(settings: Settings, children: list[Child], environment: dict[str, str]) -> int:
    ending: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda caught, _frame: ending.append(caught))
    (settings.state / "agent.ready").unlink(missing_ok=True)
    for child in children:
        _start(child, environment)
    ready_until: float | None = time.monotonic() + READY_SECONDS
    while not ending:
        for child in children:
            assert child.process is not None
            status = child.process.poll()
            if status is None:
                continue
            if ready_until is not None:
                raise OperatorError(f"the {child.name} exited with status {status} during startup; see the log above.")
            log.error("The %s exited with status %s; restarting it", child.name, status)
            recent = [start for start in child.starts if start > time.monotonic() - 60]
            time.sleep(RESTART_SECONDS * min(len(recent), 10))
            _start(child, environment)
        if ready_until is not None:
            agent_is_ready = not settings.agent or (settings.state / "agent.ready").exists()
            if agent_is_ready and _is_answering(_url(settings)):
                print(
                    f"Sixstack answers at {_url(settings)}; credentials are in {settings.state / 'clouds.yaml'}",
                    flush=True,
                )
                (settings.state / "up.url").write_text(_url(settings) + "\n")
                processes.notify_systemd("READY=1")
                ready_until = None
            elif time.monotonic() > ready_until:
                if not _is_answering(_url(settings)):
                    raise OperatorError(f"the cloud did not answer within {READY_SECONDS:.0f} s; see the log above.")
                log.info("The API is ready; the agent is still starting the machines that ran before the reboot")
                ready_until = time.monotonic() + READY_SECONDS
        time.sleep(0.05 if ready_until is not None else 0.5)
    return 0


def down(settings: Settings, *, servers: bool) -> int:
    """Stop a running cloud, with `servers` its guests as well. Succeeds when it is not running."""
    if not (settings.state / "installation.json").exists():
        print(f"There is no Sixstack installation in {settings.state}.")
        return 0
    pid = processes.read_pid_file(settings.state / "up.pid")
    if pid is not None:
        print("Stopping the API and the agent…", flush=True)
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(pid)
    if not servers:
        print("Sixstack is stopped; its guests keep running. `sixstack down --servers` stops them as well.")
        return 0
    from compute_agent.host_config import make_hypervisor
    from compute_agent.shutdown import end_machines
    from hypervisor.api.errors import HypervisorError

    with _exclusive_lock(settings):
        try:
            hypervisor = make_hypervisor(settings, installation.load(settings))
            ended = end_machines(hypervisor, settings)
        except HypervisorError as error:
            raise OperatorError(str(error)) from None
    print(
        f"Sixstack and its {ended} guest{'' if ended == 1 else 's'} are stopped. Disks are kept; `sixstack up` starts "
        "the guests again."
    )
    return 0


def _check_host(settings: Settings) -> None:
    settings.address, settings.console_address, settings.proxies  # noqa: B018  raise if invalid
    if dns_settings.is_sync_enabled(settings):
        dns_settings.name_server(settings)  # raises if invalid
    if not settings.agent:
        return
    if os.geteuid() != 0:
        raise OperatorError("creating network links and taps requires root. Run the command as root, or with sudo.")
    if not Path("/dev/net/tun").exists():
        raise OperatorError("/dev/net/tun is missing; guests' interfaces need it. Run: modprobe tun")


@contextmanager
def _port(settings: Settings) -> Iterator[None]:
    """Raise OperatorError if another process listens at the API's port: the server shares its port, so its own
    bind would succeed. Retries for PORT_SECONDS: a killed process keeps its port until the kernel has removed it.
    """
    host, port = settings.address
    until = time.monotonic() + PORT_SECONDS
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
            break
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < until:
                time.sleep(0.1)
                continue
            reason = error.strerror or str(error)
            raise OperatorError(f"cannot listen at {settings.listen}: {reason}. Choose another --listen.") from None
    yield


@contextmanager
def _exclusive_lock(settings: Settings) -> Iterator[None]:
    """Hold the lock of the state directory, which allows one supervisor. Raises OperatorError when it is taken."""
    if not settings.state.exists():
        yield
        return
    lock: IO[str] = (settings.state / "up.lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = processes.read_pid_file(settings.state / "up.pid")
            raise OperatorError(
                f"Sixstack already runs in {settings.state} (process {pid}). "
                f"`sixstack down --state {settings.state}` stops it."
            ) from None
        yield


def _prepare_database(environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-m", "app.bootstrap"], env=environment, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise OperatorError("the database could not be prepared; see the line above.")


def _start(child: Child, environment: dict[str, str]) -> None:
    child.process = subprocess.Popen(child.command, env={**environment, **child.environment}, stdin=subprocess.DEVNULL)
    child.starts.append(time.monotonic())


def _end(children: list[Child]) -> None:
    running = [child.process for child in reversed(children) if child.process and child.process.poll() is None]
    for process in running:
        process.terminate()
    until = time.monotonic() + END_SECONDS
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_url(settings: Settings) -> str | None:
    """Return the URL of the running cloud of this state directory; None when it does not answer."""
    try:
        url = (settings.state / "up.url").read_text().strip()
    except OSError:
        return None
    return url if _is_answering(url) else None


def _url(settings: Settings) -> str:
    host, port = settings.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_answering(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/identity/v3", timeout=2):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False


def _wait_for_end(pid: int) -> None:
    start = processes.start_time(pid)
    until = time.monotonic() + END_SECONDS + 10
    while processes.start_time(pid) == start and start is not None:
        if time.monotonic() > until:
            raise OperatorError(f"process {pid} does not exit; inspect it with `ps -fp {pid}`.")
        time.sleep(0.05)
