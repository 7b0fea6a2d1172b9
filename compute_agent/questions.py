"""Answers what the API asks about machines: one JSON line each way over a Unix socket in the state directory."""

import logging
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from compute_api.nudge import ASK_SOCKET_NAME, reachable
from hypervisor.errors import HypervisorError
from hypervisor.protocol import Hypervisor

log = logging.getLogger(__name__)


def console_log(hypervisor: Hypervisor, machine_id: str) -> str:
    """What the serial console has shown."""
    return hypervisor.console_log(machine_id).decode(errors="replace")


def diagnostics(hypervisor: Hypervisor, machine_id: str) -> dict[str, Any]:
    """What the machine has counted since it started."""
    return hypervisor.diagnostics(machine_id).model_dump(mode="json")


QUESTIONS: dict[str, Callable[..., Any]] = {"console_log": console_log, "diagnostics": diagnostics}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    hypervisor: Hypervisor


class _Asked(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            request = orjson.loads(self.rfile.readline(1 << 20))
            answer = QUESTIONS[request.pop("question")](self.server.hypervisor, **request)
            reply = {"answer": answer}
        except HypervisorError as error:
            reply = {"error": str(error)}
        except Exception:
            log.exception("A question could not be answered")
            reply = {"error": "The host could not answer."}
        self.wfile.write(orjson.dumps(reply) + b"\n")


def serve(state: Path, hypervisor: Hypervisor) -> Callable[[], None]:
    """Answer from a thread of its own; returns what ends it."""
    path = state / ASK_SOCKET_NAME
    path.unlink(missing_ok=True)
    with reachable(path) as name:
        server = _Server(name, _Asked)
    path.chmod(0o600)
    server.hypervisor = hypervisor
    threading.Thread(target=server.serve_forever, name="questions", daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)

    return close
