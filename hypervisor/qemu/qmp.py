"""Talking to a running qemu: a listening socket made for it, and one short conversation at a time."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError
from qemu.qmp.qmp_client import GreetingError

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

# The answer to somebody who has died meanwhile may come to whoever connects next, in place of the greeting.
GREETINGS = 3


class _NotGreeted(Exception):
    """Something else came first; nothing was asked yet."""


class QmpUnavailable(HypervisorError):
    """There is no qemu at the other end, or it went away meanwhile."""


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for a socket file that fits into 107 bytes, however deep the directory is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> socket.socket:
    """A listening socket to be inherited by qemu; a left-over one gives way."""
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
    """Whether a process has the socket open for listening."""
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
    """Run commands in one conversation and return their answers. Raises as `talk` does."""

    async def converse(client: QMPClient) -> list[Any]:
        return [await client.execute(command) for command in commands]

    return run_session(path, converse, timeout_seconds=timeout_seconds)


def run_session(path: Path, conversation: Callable[[QMPClient], Awaitable[T]], *, timeout_seconds: float = 10.0) -> T:
    """Have one conversation with qemu and return what comes of it.

    Raises NobodyAnswers when qemu is not there, HypervisorError when it does not answer in time or refuses.
    """
    for _ in range(GREETINGS):
        with contextlib.suppress(_NotGreeted):
            return _talk_once(path, conversation, timeout_seconds)
    raise QmpUnavailable("qemu does not greet.")


def _talk_once(path: Path, conversation: Callable[[QMPClient], Awaitable[T]], timeout_seconds: float) -> T:
    deadline = time.monotonic() + timeout_seconds
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        try:
            connect(connection, path, deadline)
        except (FileNotFoundError, ConnectionError) as error:
            raise QmpUnavailable("qemu is not there.") from error
        connection.setblocking(False)
        return asyncio.run(asyncio.wait_for(_converse(connection, conversation), timeout_seconds))
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

    A Unix socket never waits for a place in the backlog when it has a timeout: connect(2) fails with EAGAIN. qemu keeps
    a backlog of one, and serves one client at a time.
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


async def _converse(connection: socket.socket, conversation: Callable[[QMPClient], Awaitable[T]]) -> T:
    client = QMPClient("sixstack")
    try:
        await client.connect(connection)
    except ConnectError as error:
        if isinstance(error.exc, GreetingError):
            raise _NotGreeted from error
        raise
    try:
        return await conversation(client)
    finally:
        with contextlib.suppress(QMPError, EOFError, ConnectionError):
            await client.disconnect()


def query_state(path: Path, *, timeout_seconds: float = 10.0) -> tuple[MachineState, str]:
    """What qemu says of its guest: the state, and qemu's own word for it."""
    (answer,) = execute(path, "query-status", timeout_seconds=timeout_seconds)
    word = str(answer["status"])
    return _STATES.get(word, MachineState.CRASHED), word
