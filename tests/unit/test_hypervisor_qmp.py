"""QMP client against a fake QEMU."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import MachineState
from hypervisor.qemu import qmp

GREETING = b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}\n'
ANSWERS = {"qmp_capabilities": {}, "query-status": {"status": "running"}}


def serve_status(listener: socket.socket, first: bytes = b"") -> None:
    """Accept one client, send `first` before the greeting, and answer its commands until it leaves."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(first + GREETING)
        while asked := connection.recv(4096):
            request = json.loads(asked)
            answer = {"return": ANSWERS[request["execute"]]}
            if "id" in request:
                answer["id"] = request["id"]
            connection.sendall(json.dumps(answer).encode() + b"\r\n")


def test_leftover_response_is_not_taken_for_the_greeting(tmp_path: Path) -> None:
    path = tmp_path / "qmp"

    def serve(listener: socket.socket) -> None:
        serve_status(listener, b'{"return": {}}\r\n')
        serve_status(listener)

    with qmp.listen(path) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert qmp.query_state(path) == (MachineState.RUNNING, "running")
        thread.join()


def test_an_event_in_place_of_the_negotiation_reply_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "qmp"

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(GREETING)
            connection.recv(4096)
            connection.sendall(b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}\r\n')
            connection.recv(4096)
        serve_status(listener)

    with qmp.listen(path) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert qmp.query_state(path) == (MachineState.RUNNING, "running")
        thread.join()


def test_full_backlog_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with qmp.listen(path) as listener, contextlib.ExitStack() as others:
        listener.listen(0)
        waiting = others.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        waiting.connect(str(path))
        assert qmp.is_listening(path)

        def serve() -> None:
            refused.wait()
            listener.accept()[0].close()
            serve_status(listener)

        refused = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        one_more = others.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        one_more.setblocking(False)
        with pytest.raises(BlockingIOError):
            one_more.connect(str(path))
        threading.Timer(0.05, refused.set).start()
        assert qmp.query_state(path) == (MachineState.RUNNING, "running")
        thread.join()


def test_backlog_that_stays_full_times_out(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with qmp.listen(path) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        listener.listen(0)
        waiting.connect(str(path))
        with pytest.raises(HypervisorError, match=r"did not answer within 0\.1 seconds"):
            qmp.query_state(path, timeout_seconds=0.1)
