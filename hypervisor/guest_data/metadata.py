"""The metadata service: guests ask http://[fe80::a9fe:a9fe]/ on any of their networks who they are.

It listens on the bridge of every segment and on nothing else. Who asks is told by the bridge and the source address of
the connection, which the rules against spoofing hold every guest to, and never by anything that the guest says.
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
from hypervisor.network.links import METADATA
from hypervisor.network.segments import Segments

log = logging.getLogger(__name__)

PORT = 80
IPV6_FREEBIND = 78  # linux/in6.h; Python's socket module lacks it
THREADS = 16
CONNECTIONS = 256
CONNECTIONS_PER_GUEST = 4
PATIENCE_SECONDS = 20.0  # from the first packet to the last, however busily a guest dribbles
PASSWORD_BYTES = 1020  # as Nova, which keeps it in four columns of 255
EC2_VERSIONS = ("2007-01-19", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "latest")

Response = tuple[HTTPStatus, str, bytes]
Guest = tuple[int, IPv6Address]  # index of the bridge, source address

TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"


class MetadataService:
    """Follows the segments of a host: a socket for each bridge, one thread that waits and a few that answer."""

    def __init__(
        self,
        segments: Segments,
        paths: HostPaths,
        spec: Callable[[str], MachineSpec | None],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._segments = segments
        self._paths = paths
        self._spec = spec
        self._patience_seconds = patience_seconds
        self._listeners: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._open: dict[socket.socket, tuple[Guest, float]] = {}  # who is connected, and until when
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="metadata")
        self._wake, self._woken = socket.socketpair()
        self._closing = False
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._wait, name="metadata", daemon=True)

    def start(self) -> None:
        """Listen on every bridge there is, and on those to come."""
        self._segments.subscribe(self._follow)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._segments.subscribe(lambda _: None)
        self._closing = True
        self._wake.send(b"!")
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for opened in (*self._open, *self._listeners.values(), self._wake, self._woken):
            opened.close()
        self._selector.close()

    def _follow(self, bridges: dict[int, int]) -> None:
        """Listen on exactly these bridges."""
        with self._lock:
            for index in self._listeners.keys() - bridges.keys():
                listener = self._listeners.pop(index)
                self._selector.unregister(listener)
                listener.close()
            for index in bridges.keys() - self._listeners.keys():
                try:
                    self._listeners[index] = self._listen(index)
                except OSError as error:
                    # The guests still have their config drives; the next look at the segments tries again.
                    log.error("No metadata on the segment %d: %s", bridges[index], error.strerror)
                    continue
                self._selector.register(self._listeners[index], selectors.EVENT_READ, index)

    def _listen(self, bridge: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Without it bind(2) fails with EADDRNOTAVAIL while the kernel still calls the address tentative.
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            listener.bind((str(METADATA), PORT, 0, bridge))
            listener.listen(64)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    def _wait(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(1.0 if self._open else None):
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                else:
                    # A listener that was closed meanwhile, or a guest that has gone again.
                    with contextlib.suppress(OSError):
                        connection, peer = key.fileobj.accept()  # type: ignore[union-attr]
                        self._admit(connection, (key.data, IPv6Address(peer[0].partition("%")[0])))
            self._hang_up()

    def _admit(self, connection: socket.socket, guest: Guest) -> None:
        """One guest cannot keep the others waiting."""
        with self._lock:
            same = sum(other == guest for other, _ in self._open.values())
            if same >= CONNECTIONS_PER_GUEST or len(self._open) >= CONNECTIONS:
                connection.close()
                return
            self._open[connection] = guest, time.monotonic() + self._patience_seconds
        self._pool.submit(self._serve, connection, guest)

    def _hang_up(self) -> None:
        """On those who have had their time; the thread that serves them notices at once."""
        now = time.monotonic()
        with self._lock:
            late = [connection for connection, (_, until) in self._open.items() if until < now]
            for connection in late:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, guest: Guest) -> None:
        try:
            with connection:
                connection.settimeout(self._patience_seconds)
                try:
                    _Request(connection, guest, self)
                finally:
                    with self._lock:
                        del self._open[connection]
        except OSError:
            pass  # the guest went away
        except Exception:
            log.exception("A guest's request for metadata failed")

    def machine_of(self, guest: Guest) -> tuple[MachineSpec, MachinePaths] | None:
        """Who asks; None for somebody who is no guest of this host."""
        bridge, address = guest
        vni = self._segments.bridges().get(bridge)
        machine_id = None if vni is None else self._segments.find_owner(vni, address)
        spec = None if machine_id is None else self._spec(machine_id)
        return None if spec is None else (self._segments.guest_spec(spec), self._paths.machine(spec.id))


class _Request(BaseHTTPRequestHandler):
    """One connection of a guest. The base class calls `do_METHOD` for what it reads."""

    server_version = "sixstack"
    sys_version = ""

    def __init__(self, connection: socket.socket, guest: Guest, service: MetadataService) -> None:
        self.service = service
        self.guest = guest
        super().__init__(connection, guest, None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._say(self._found())

    def do_HEAD(self) -> None:
        self._say(self._found(), with_body=False)

    def do_POST(self) -> None:
        self._say(self._posted())

    def _found(self) -> Response:
        known = self.service.machine_of(self.guest)
        return NOT_FOUND if known is None else resolve(*known, _parts(self.path))

    def _posted(self) -> Response:
        known = self.service.machine_of(self.guest)
        if known is None:
            return NOT_FOUND
        parts = _parts(self.path)
        if len(parts) != 3 or parts[0] != "openstack" or parts[1] not in VERSIONS or parts[2] != "password":
            return _failure(HTTPStatus.METHOD_NOT_ALLOWED)
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            return _failure(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > PASSWORD_BYTES:
            return _failure(HTTPStatus.BAD_REQUEST, "Request is too large.")
        content = self.rfile.read(int(length))
        if len(content) != int(length):
            return _failure(HTTPStatus.BAD_REQUEST)
        return store_password(known[1], content)

    def _say(self, answer: Response, *, with_body: bool = True) -> None:
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def address_string(self) -> str:
        return str(self.guest[1])

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("%s on bridge %d: %s", self.address_string(), self.guest[0], format % arguments)


def resolve(spec: MachineSpec, paths: MachinePaths, parts: list[str]) -> Response:
    """What is found below `/`, for one machine."""
    match parts:
        case []:
            return _listing([*EC2_VERSIONS, "openstack"])
        case ["openstack"]:
            return _listing(list(VERSIONS))
        case ["openstack", version, *rest] if version in VERSIONS:
            return _openstack(spec, paths, rest)
        case [version] if version in EC2_VERSIONS:
            return _listing(["meta-data/", *(["user-data"] if spec.user_data else [])])
        case [version, "user-data"] if version in EC2_VERSIONS and spec.user_data:
            return HTTPStatus.OK, BYTES, _openstack_files(spec, paths)["user_data"]
        case [version, "meta-data", *rest] if version in EC2_VERSIONS:
            return _ec2(ec2_data(spec), rest)
    return NOT_FOUND


def store_password(paths: MachinePaths, content: bytes) -> Response:
    """Written once: whoever comes later in the guest cannot replace it."""
    try:
        descriptor = os.open(paths.password, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _failure(HTTPStatus.CONFLICT)
    with open(descriptor, "wb") as file:
        file.write(content)
    return HTTPStatus.OK, TEXT, b""


def load_password(paths: MachinePaths) -> bytes:
    """What the guest has posted; empty before."""
    try:
        return paths.password.read_bytes()
    except FileNotFoundError:
        return b""


def forget_password(paths: MachinePaths) -> None:
    """The guest may post another one; content if it is gone."""
    paths.password.unlink(missing_ok=True)


def _openstack(spec: MachineSpec, paths: MachinePaths, rest: list[str]) -> Response:
    files = _openstack_files(spec, paths)
    match rest:
        case []:
            return _listing(sorted([*files, "password"]))
        case ["password"]:
            return HTTPStatus.OK, TEXT, load_password(paths)
        case [name] if name in files:
            return HTTPStatus.OK, JSON if name.endswith(".json") else BYTES, files[name]
    return NOT_FOUND


def _openstack_files(spec: MachineSpec, paths: MachinePaths) -> dict[str, bytes]:
    """As on the config drive, but the password is only there: every process in the guest can ask here."""
    return openstack_files(spec.model_copy(update={"admin_pass": None, "files": ()}), load_runtime_state(paths).slots)


def _ec2(tree: dict[str, Any], rest: list[str]) -> Response:
    """A leaf, or a listing, in which branches end in `/`; keys are listed as NUMBER=NAME."""
    place: Any = tree
    for part in rest:
        if not isinstance(place, dict) or part not in place or part.startswith("_"):
            return NOT_FOUND
        place = place[part]
    if not isinstance(place, dict):
        return HTTPStatus.OK, TEXT, str(place).encode()
    names = [name for name in place if not name.startswith("_")]
    if rest == ["public-keys"]:
        return _listing([str(place[name]["_name"]) for name in names])
    return _listing([f"{name}/" if isinstance(place[name], dict) else name for name in sorted(names)])


def _parts(path: str) -> list[str]:
    return [unquote(part) for part in urlsplit(path).path.split("/") if part]


def _listing(names: list[str]) -> Response:
    return HTTPStatus.OK, TEXT, "\n".join(names).encode()


def _failure(status: HTTPStatus, words: str = "") -> Response:
    return status, TEXT, json.dumps(words or status.phrase).encode()


NOT_FOUND: Response = _failure(HTTPStatus.NOT_FOUND)
