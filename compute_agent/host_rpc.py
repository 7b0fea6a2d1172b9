"""RPC server of the host: methods of the API on machines, over a Unix socket with one JSON line in each direction."""

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
    """Return the serial console's log."""
    return hypervisor.console_log(machine_id).decode(errors="replace")


def diagnostics(hypervisor: Hypervisor, machine_id: str) -> dict[str, Any]:
    """Return the machine's counters."""
    return hypervisor.diagnostics(machine_id).model_dump(mode="json")


def inject_nmi(hypervisor: Hypervisor, machine_id: str) -> None:
    """Inject an NMI; the guest decides how to handle it."""
    hypervisor.inject_nmi(machine_id)


def password(hypervisor: Hypervisor, machine_id: str) -> str:
    """Return the encrypted password that the guest has posted, or an empty string."""
    return hypervisor.password(machine_id).decode(errors="replace")


def forget_password(hypervisor: Hypervisor, machine_id: str) -> None:
    """Delete the posted password, so that the guest may post another one."""
    hypervisor.forget_password(machine_id)


def migration_progress(hypervisor: Hypervisor, machine_id: str) -> dict[str, int] | None:
    """Return the progress of the machine's migration, or None."""
    progress = hypervisor.migration_progress(machine_id)
    return None if progress is None else progress.model_dump()


def abort_migration(hypervisor: Hypervisor, machine_id: str) -> None:
    """Abort the machine's migration."""
    hypervisor.interrupt(machine_id)


def end_migration(hypervisor: Hypervisor, machine_id: str) -> None:
    """Force the migration to complete, whatever memory the guest writes."""
    hypervisor.force_migration_completion(machine_id)


def check_console(hypervisor: Hypervisor, machine_id: str) -> None:
    """Raise HypervisorError unless the console can be opened."""
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
    """Handle a request; returns {"answer": value} or {"error": message} and never raises."""
    try:
        return {"answer": {**METHODS, **(more or {})}[request.pop("question")](hypervisor, **request)}
    except HypervisorError as error:
        return {"error": str(error)}
    except Exception:
        log.exception("An RPC request failed")
        return {"error": "The host failed to handle the request."}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    hypervisor: Hypervisor
    more: Methods


class _RequestHandler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        request = orjson.loads(self.rfile.readline(1 << 20))
        self.wfile.write(orjson.dumps(handle_request(self.server.hypervisor, request, self.server.more)) + b"\n")


def serve(state: Path, hypervisor: Hypervisor, client_uid: int | None = None) -> Callable[[], None]:
    """Serve requests of processes of the user `client_uid`, by default our own, in a thread; returns a function that
    stops it."""
    client_uid = os.geteuid() if client_uid is None else client_uid
    path = state / RPC_SOCKET_NAME
    path.unlink(missing_ok=True)
    with short_socket_path(path) as name:
        server = _Server(name, _RequestHandler)
    path.chmod(0o600)
    os.chown(path, client_uid, -1)
    server.hypervisor = hypervisor
    server.more = {"open_console": partial(socket_handoff.open_console, taker=client_uid)}
    threading.Thread(target=server.serve_forever, name="rpc", daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)

    return close
