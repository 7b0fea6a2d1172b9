"""Answers what the API asks about machines: one JSON line each way over a Unix socket in the state directory."""

import logging
import os
import socketserver
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from app.console_transport import socket_handoff
from compute_api.rpc.notify import RPC_SOCKET_NAME, short_socket_path
from hypervisor.api.errors import HypervisorError
from hypervisor.api.protocol import Hypervisor

log = logging.getLogger(__name__)


def console_log(hypervisor: Hypervisor, machine_id: str) -> str:
    """What the serial console has shown."""
    return hypervisor.console_log(machine_id).decode(errors="replace")


def diagnostics(hypervisor: Hypervisor, machine_id: str) -> dict[str, Any]:
    """What the machine has counted since it started."""
    return hypervisor.diagnostics(machine_id).model_dump(mode="json")


def inject_nmi(hypervisor: Hypervisor, machine_id: str) -> None:
    """The guest is to dump its memory, if it is set up for that."""
    hypervisor.inject_nmi(machine_id)


def password(hypervisor: Hypervisor, machine_id: str) -> str:
    """What the guest has posted; empty before."""
    return hypervisor.password(machine_id).decode(errors="replace")


def forget_password(hypervisor: Hypervisor, machine_id: str) -> None:
    """The guest may post another one."""
    hypervisor.forget_password(machine_id)


def migration_progress(hypervisor: Hypervisor, machine_id: str) -> dict[str, int] | None:
    """How far the machine is on its way to another host; None when it is not."""
    progress = hypervisor.migration_progress(machine_id)
    return None if progress is None else progress.model_dump()


def abort_migration(hypervisor: Hypervisor, machine_id: str) -> None:
    """It is to stay here."""
    hypervisor.interrupt(machine_id)


def end_migration(hypervisor: Hypervisor, machine_id: str) -> None:
    """It is to leave soon, whatever its guest writes."""
    hypervisor.force_migration_completion(machine_id)


def check_console(hypervisor: Hypervisor, machine_id: str) -> None:
    """Whether there is one that can be opened."""
    hypervisor.check_console(machine_id)


Methods = Mapping[str, Callable[..., Any]]
METHODS: Methods = {
    "abort_migration": abort_migration,
    "check_console": check_console,
    "console_log": console_log,
    "diagnostics": diagnostics,
    "end_migration": end_migration,
    "forget_password": forget_password,
    "inject_nmi": inject_nmi,
    "migration_progress": migration_progress,
    "open_console": socket_handoff.open_console,
    "password": password,
}


def handle_request(hypervisor: Hypervisor, request: dict[str, Any], more: Methods | None = None) -> dict[str, Any]:
    """{"answer": value}, or {"error": words}; never raises."""
    try:
        return {"answer": {**METHODS, **(more or {})}[request.pop("question")](hypervisor, **request)}
    except HypervisorError as error:
        return {"error": str(error)}
    except Exception:
        log.exception("A question could not be answered")
        return {"error": "The host could not answer."}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    hypervisor: Hypervisor
    more: Methods


class _RequestHandler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        request = orjson.loads(self.rfile.readline(1 << 20))
        self.wfile.write(orjson.dumps(handle_request(self.server.hypervisor, request, self.server.more)) + b"\n")


def serve(state: Path, hypervisor: Hypervisor, asker: int | None = None) -> Callable[[], None]:
    """Answer processes of the user `asker`, our own by default, from a thread; returns what ends it."""
    asker = os.geteuid() if asker is None else asker
    path = state / RPC_SOCKET_NAME
    path.unlink(missing_ok=True)
    with short_socket_path(path) as name:
        server = _Server(name, _RequestHandler)
    path.chmod(0o600)
    os.chown(path, asker, -1)
    server.hypervisor = hypervisor
    server.more = {"open_console": partial(socket_handoff.open_console, taker=asker)}
    threading.Thread(target=server.serve_forever, name="questions", daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)

    return close
