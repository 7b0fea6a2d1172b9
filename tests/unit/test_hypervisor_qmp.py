"""Conversations with qemu, by a stand-in at the other end of the socket."""

import json
import socket
import threading
from pathlib import Path

from hypervisor import qmp
from hypervisor.machine import MachineState

GREETING = b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}\n'
ANSWERS = {"qmp_capabilities": {}, "query-status": {"status": "running"}}


def test_what_somebody_who_died_had_asked_is_not_taken_for_the_greeting(tmp_path: Path) -> None:
    path = tmp_path / "qmp"

    def serve(listener: socket.socket) -> None:
        for first in (b'{"return": {}}\r\n', b""):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(first + GREETING)
                while asked := connection.recv(4096):
                    request = json.loads(asked)
                    answer = {"return": ANSWERS[request["execute"]]}
                    if "id" in request:
                        answer["id"] = request["id"]
                    connection.sendall(json.dumps(answer).encode() + b"\r\n")

    with qmp.listen(path) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert qmp.state(path) == (MachineState.RUNNING, "running")
        thread.join()
