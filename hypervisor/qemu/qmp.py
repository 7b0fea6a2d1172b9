"""QMP client: creates the listening socket for qemu and runs short, exclusive sessions."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError
from qemu.qmp.qmp_client import GreetingError, NegotiationError

from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import MachineState

T = TypeVar("T")

_STATES = {
    "running": MachineState.RUNNING,
    "suspended": MachineState.RUNNING,
    "debug": MachineState.RUNNING,
    "paused": MachineState.PAUSED,
    "prelaunch": MachineState.PAUSED,
    "inmigrate": MachineState.PAUSED,
    "finish-migrate": MachineState.PAUSED,
    "postmigrate": MachineState.PAUSED,
    "shutdown": MachineState.SHUTOFF,
    "internal-error": MachineState.CRASHED,
    "io-error": MachineState.NO_SPACE,
    "guest-panicked": MachineState.CRASHED,
    "watchdog": MachineState.CRASHED,
}


# Backoff between attempts to connect to a qemu that is busy with other clients.
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.2

# A new client may receive an event, or the response to a client that has disconnected, before its session is set up.
SETUP_ATTEMPTS = 5


class _SessionNotSetUp(Exception):
    """An event or the response to another client arrived while the session was set up.

    No command of ours was executed, so the session may be retried.
    """


class QmpUnavailable(HypervisorError):
    """qemu does not listen, or it closed the connection."""


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """Yield a path of a socket file that fits into the 107 bytes of a Unix socket address."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> socket.socket:
    """Create a listening socket for qemu to inherit; replaces an existing socket file."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_name(path) as name:
            listener.bind(name)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener


def is_listening(path: Path) -> bool:
    """Return whether a process listens on the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            with short_name(path) as name:
                connection.connect(name)
        except (FileNotFoundError, ConnectionError):
            return False
        except (TimeoutError, BlockingIOError):  # the backlog of the listening socket is full
            return True
        return True


def execute(path: Path, *commands: str, timeout_seconds: float = 10.0) -> list[Any]:
    """Execute commands in one session and return their results. Raises the errors of `run_session`."""

    async def execute_all(client: QMPClient) -> list[Any]:
        return [await client.execute(command) for command in commands]

    return run_session(path, execute_all, timeout_seconds=timeout_seconds)


def run_session(path: Path, session: Callable[[QMPClient], Awaitable[T]], *, timeout_seconds: float = 10.0) -> T:
    """Connect to qemu, run a session and return its result.

    Raises QmpUnavailable when qemu does not run, HypervisorError at a timeout or when a command fails.
    """
    for _ in range(SETUP_ATTEMPTS):
        with contextlib.suppress(_SessionNotSetUp):
            return _try_session(path, session, timeout_seconds)
    raise QmpUnavailable("qemu did not set up a control session.")


def _try_session(path: Path, session: Callable[[QMPClient], Awaitable[T]], timeout_seconds: float) -> T:
    deadline = time.monotonic() + timeout_seconds
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        try:
            connect(connection, path, deadline)
        except (FileNotFoundError, ConnectionError) as error:
            raise QmpUnavailable("qemu is not there.") from error
        connection.setblocking(False)
        return asyncio.run(asyncio.wait_for(_negotiate_and_run(connection, session), timeout_seconds))
    except TimeoutError as error:
        raise HypervisorError(f"qemu did not answer within {timeout_seconds:g} seconds.") from error
    except ExecuteError as error:
        raise HypervisorError(f"qemu refused: {error}") from error
    except (QMPError, EOFError, ConnectionError, asyncio.CancelledError) as error:
        raise QmpUnavailable("qemu went away.") from error
    finally:
        connection.close()


def connect(connection: socket.socket, path: Path, deadline: float) -> None:
    """Connect, with backoff while the backlog is full. Raises TimeoutError at the deadline (monotonic seconds).

    On a Unix socket with a timeout, connect(2) fails with EAGAIN when the backlog is full. qemu has a backlog of one
    and serves one client at a time.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with short_name(path) as name:
                return connection.connect(name)
        except BlockingIOError as error:
            if time.monotonic() + pause > deadline:
                raise TimeoutError from error
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def _negotiate_and_run(connection: socket.socket, session: Callable[[QMPClient], Awaitable[T]]) -> T:
    client = QMPClient("sixstack")
    try:
        await client.connect(connection)
    except ConnectError as error:
        if isinstance(error.exc, GreetingError | NegotiationError):
            raise _SessionNotSetUp from error
        raise
    try:
        return await session(client)
    finally:
        with contextlib.suppress(QMPError, EOFError, ConnectionError):
            await client.disconnect()


def query_state(path: Path, *, timeout_seconds: float = 10.0) -> tuple[MachineState, str]:
    """Query the state of the guest. Returns it as a machine state and as qemu's run state."""
    (result,) = execute(path, "query-status", timeout_seconds=timeout_seconds)
    run_state = str(result["status"])
    return _STATES.get(run_state, MachineState.CRASHED), run_state
