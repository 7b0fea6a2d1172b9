"""Metadata service: serves OpenStack and EC2 metadata to guests at http://[fe80::a9fe:a9fe]/ on each of their networks.

The service listens on the bridges of the segments only. It identifies a guest by the bridge and the source address of
the connection, which the anti-spoofing rules enforce, never by headers or other contents of the request.
"""

import contextlib
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import unquote, urlsplit

from hypervisor.api.spec import MachineSpec
from hypervisor.base.paths import HostPaths, MachinePaths
from hypervisor.base.runtime_state import load_runtime_state
from hypervisor.guest_data.config_drive import VERSIONS, ec2_data, openstack_files
from hypervisor.network.links import METADATA_ADDRESS
from hypervisor.network.segments import Segments

log = logging.getLogger(__name__)

PORT = 80
IPV6_FREEBIND = 78  # linux/in6.h; not defined in Python's socket module
WORKER_THREADS = 16
MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_GUEST = 4
CONNECTION_TIMEOUT_SECONDS = 20.0  # for the whole connection, even if the guest keeps sending
MAX_PASSWORD_BYTES = 1020  # Nova's limit: four database columns of 255
EC2_VERSIONS = ("2007-01-19", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "latest")

Response = tuple[HTTPStatus, str, bytes]
Guest = tuple[int, IPv6Address]  # index of the bridge, source address

TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"


class MetadataService:
    """The metadata server of a host: a listening socket for each bridge, one accepting thread and a pool of workers."""

    def __init__(
        self,
        segments: Segments,
        paths: HostPaths,
        spec: Callable[[str], MachineSpec | None],
        *,
        timeout_seconds: float = CONNECTION_TIMEOUT_SECONDS,
    ) -> None:
        self._segments = segments
        self._paths = paths
        self._spec = spec
        self._timeout_seconds = timeout_seconds
        self._listeners: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._connections: dict[socket.socket, tuple[Guest, float]] = {}  # peer and deadline (monotonic)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=WORKER_THREADS, thread_name_prefix="metadata")
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._closing = False
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._accept_connections, name="metadata", daemon=True)

    def start(self) -> None:
        """Listen on all present and future bridges."""
        self._segments.subscribe(self._update_listeners)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._segments.subscribe(lambda _: None)
        self._closing = True
        self._wake_sender.send(b"!")
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for sock in (*self._connections, *self._listeners.values(), self._wake_sender, self._wake_receiver):
            sock.close()
        self._selector.close()

    def _update_listeners(self, bridges: dict[int, int]) -> None:
        """Listen on exactly these bridges: link index → VNI."""
        with self._lock:
            for index in self._listeners.keys() - bridges.keys():
                listener = self._listeners.pop(index)
                self._selector.unregister(listener)
                listener.close()
            for index in bridges.keys() - self._listeners.keys():
                try:
                    self._listeners[index] = self._listen(index)
                except OSError as error:
                    # Retried at the next change or repair of the segments.
                    log.error("Cannot serve metadata on segment %d: %s", bridges[index], error.strerror)
                    continue
                self._selector.register(self._listeners[index], selectors.EVENT_READ, index)

    def _listen(self, bridge: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Without IPV6_FREEBIND, bind(2) fails with EADDRNOTAVAIL while the address is tentative.
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            listener.bind((str(METADATA_ADDRESS), PORT, 0, bridge))
            listener.listen(64)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    def _accept_connections(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(1.0 if self._connections else None):
                if key.fileobj is self._wake_receiver:
                    self._wake_receiver.recv(4096)
                else:
                    # The listener was closed, or the guest has already disconnected.
                    with contextlib.suppress(OSError):
                        connection, peer = key.fileobj.accept()  # type: ignore[union-attr]
                        self._admit(connection, (key.data, IPv6Address(peer[0].partition("%")[0])))
            self._shut_down_expired()

    def _admit(self, connection: socket.socket, guest: Guest) -> None:
        """Queue a connection for a worker, or close it if the guest or the service has too many."""
        with self._lock:
            guest_connections = sum(other == guest for other, _ in self._connections.values())
            if guest_connections >= MAX_CONNECTIONS_PER_GUEST or len(self._connections) >= MAX_CONNECTIONS:
                connection.close()
                return
            self._connections[connection] = guest, time.monotonic() + self._timeout_seconds
        self._pool.submit(self._serve, connection, guest)

    def _shut_down_expired(self) -> None:
        """Shut down connections past their deadline, which wakes the worker that serves them."""
        now = time.monotonic()
        with self._lock:
            expired = [connection for connection, (_, deadline) in self._connections.items() if deadline < now]
            for connection in expired:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, guest: Guest) -> None:
        try:
            with connection:
                connection.settimeout(self._timeout_seconds)
                try:
                    _Request(connection, guest, self)
                finally:
                    with self._lock:
                        del self._connections[connection]
        except OSError:
            pass  # the guest disconnected, or the connection timed out
        except Exception:
            log.exception("Metadata request failed")

    def find_machine(self, guest: Guest) -> tuple[MachineSpec, MachinePaths] | None:
        """The spec and paths of the machine that a connection comes from; None if it is no guest of this host."""
        bridge, address = guest
        vni = self._segments.bridges().get(bridge)
        machine_id = None if vni is None else self._segments.find_owner(vni, address)
        spec = None if machine_id is None else self._spec(machine_id)
        return None if spec is None else (self._segments.guest_spec(spec), self._paths.machine(spec.id))


class _Request(BaseHTTPRequestHandler):
    """One request of a guest. The base class parses it and calls `do_METHOD`."""

    server_version = "sixstack"
    sys_version = ""

    def __init__(self, connection: socket.socket, guest: Guest, service: MetadataService) -> None:
        self.service = service
        self.guest = guest
        super().__init__(connection, guest, None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._write_response(self._get_response())

    def do_HEAD(self) -> None:
        self._write_response(self._get_response(), with_body=False)

    def do_POST(self) -> None:
        self._write_response(self._accept_password())

    def _get_response(self) -> Response:
        machine = self.service.find_machine(self.guest)
        return NOT_FOUND if machine is None else build_response(*machine, _split_path(self.path))

    def _accept_password(self) -> Response:
        machine = self.service.find_machine(self.guest)
        if machine is None:
            return NOT_FOUND
        parts = _split_path(self.path)
        if len(parts) != 3 or parts[0] != "openstack" or parts[1] not in VERSIONS or parts[2] != "password":
            return _error_response(HTTPStatus.METHOD_NOT_ALLOWED)
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            return _error_response(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > MAX_PASSWORD_BYTES:
            return _error_response(HTTPStatus.BAD_REQUEST, "Request is too large.")
        content = self.rfile.read(int(length))
        if len(content) != int(length):
            return _error_response(HTTPStatus.BAD_REQUEST)
        return store_password(machine[1], content)

    def _write_response(self, response: Response, *, with_body: bool = True) -> None:
        status, content_type, body = response
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def address_string(self) -> str:
        return str(self.guest[1])

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("%s on bridge %d: %s", self.address_string(), self.guest[0], format % arguments)


def build_response(spec: MachineSpec, paths: MachinePaths, parts: list[str]) -> Response:
    """The response to a GET request of one machine. `parts`: the segments of the path."""
    match parts:
        case []:
            return _list_response([*EC2_VERSIONS, "openstack"])
        case ["openstack"]:
            return _list_response(list(VERSIONS))
        case ["openstack", version, *rest] if version in VERSIONS:
            return _openstack_response(spec, paths, rest)
        case [version] if version in EC2_VERSIONS:
            return _list_response(["meta-data/", *(["user-data"] if spec.user_data else [])])
        case [version, "user-data"] if version in EC2_VERSIONS and spec.user_data:
            return HTTPStatus.OK, BYTES, _openstack_files(spec, paths)["user_data"]
        case [version, "meta-data", *rest] if version in EC2_VERSIONS:
            return _ec2_response(ec2_data(spec), rest)
    return NOT_FOUND


def store_password(paths: MachinePaths, content: bytes) -> Response:
    """Store the password posted by the guest. It can be set only once; later requests get 409 Conflict."""
    try:
        descriptor = os.open(paths.password, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _error_response(HTTPStatus.CONFLICT)
    with open(descriptor, "wb") as file:
        file.write(content)
    return HTTPStatus.OK, TEXT, b""


def load_password(paths: MachinePaths) -> bytes:
    """The password that the guest has posted, empty if none."""
    try:
        return paths.password.read_bytes()
    except FileNotFoundError:
        return b""


def forget_password(paths: MachinePaths) -> None:
    """Delete the stored password, so that the guest may post another; succeeds when there is none."""
    paths.password.unlink(missing_ok=True)


def _openstack_response(spec: MachineSpec, paths: MachinePaths, rest: list[str]) -> Response:
    files = _openstack_files(spec, paths)
    match rest:
        case []:
            return _list_response(sorted([*files, "password"]))
        case ["password"]:
            return HTTPStatus.OK, TEXT, load_password(paths)
        case [name] if name in files:
            return HTTPStatus.OK, JSON if name.endswith(".json") else BYTES, files[name]
    return NOT_FOUND


def _openstack_files(spec: MachineSpec, paths: MachinePaths) -> dict[str, bytes]:
    """The config drive's files without admin password and injected files, as any process in the guest can read them."""
    return openstack_files(spec.model_copy(update={"admin_pass": None, "files": ()}), load_runtime_state(paths).slots)


def _ec2_response(tree: dict[str, Any], rest: list[str]) -> Response:
    """A value, or a listing in which directories end in `/`; public keys are listed as NUMBER=NAME."""
    node: Any = tree
    for part in rest:
        if not isinstance(node, dict) or part not in node or part.startswith("_"):
            return NOT_FOUND
        node = node[part]
    if not isinstance(node, dict):
        return HTTPStatus.OK, TEXT, str(node).encode()
    names = [name for name in node if not name.startswith("_")]
    if rest == ["public-keys"]:
        return _list_response([str(node[name]["_name"]) for name in names])
    return _list_response([f"{name}/" if isinstance(node[name], dict) else name for name in sorted(names)])


def _split_path(path: str) -> list[str]:
    return [unquote(part) for part in urlsplit(path).path.split("/") if part]


def _list_response(names: list[str]) -> Response:
    return HTTPStatus.OK, TEXT, "\n".join(names).encode()


def _error_response(status: HTTPStatus, message: str = "") -> Response:
    return status, TEXT, json.dumps(message or status.phrase).encode()


NOT_FOUND: Response = _error_response(HTTPStatus.NOT_FOUND)
