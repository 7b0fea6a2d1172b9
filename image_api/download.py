"""Fetching an image from a URL that a user chose, without letting the user reach what only this machine can reach.

A host name is resolved once; every address it has must be allowed, and the connection goes to the address that was
checked. Redirections are checked like the first URL. No proxy, no cookies, no credentials, no compressed transfer.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from app.errors import BadRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CONNECT_SECONDS = 15
READ_SECONDS = 60
REDIRECTIONS = 5
READ_BYTES = 1 << 20

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
REFUSED_NETWORKS: tuple[Network, ...] = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 of some site: it can stand for any IPv4 address
    ipaddress.IPv6Network("2002::/16"),  # 6to4, likewise
    ipaddress.IPv6Network("2001::/32"),  # Teredo, likewise
    ipaddress.IPv4Network("100.64.0.0/10"),
)


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be downloaded from. `allowed` networks are reached whatever they are; no ports means any."""

    ports: frozenset[int] = frozenset({80, 443})
    allowed: tuple[Network, ...] = ()
    refused: tuple[Network, ...] = ()

    @classmethod
    def read(cls, ports: str, allowed: str, own_prefix: str | None) -> "Reach":
        """From settings: comma-separated ports and networks, and the cloud's own prefix. Raises ValueError."""
        networks = tuple(ipaddress.ip_network(text.strip()) for text in allowed.split(",") if text.strip())
        own = (ipaddress.ip_network(own_prefix, strict=False),) if own_prefix else ()
        return cls(frozenset(int(text) for text in ports.split(",") if text.strip()), networks, own)

    def check_url(self, url: str) -> SplitResult:
        """The parts of a URL that may be asked for, before its name is resolved. Raises BadRequest."""
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise BadRequest(f"URI for web-download does not pass filtering: {url} is no URL.") from None
        reason = None
        if parts.scheme not in ("http", "https"):
            reason = "only http and https are fetched"
        elif not parts.hostname:
            reason = "it names no host"
        elif parts.username or parts.password:
            reason = "it carries credentials"
        elif self.ports and port not in self.ports:
            reason = f"port {port} is not allowed"
        elif any(character <= " " or character == "\x7f" for character in url):
            reason = "it contains blanks or control characters"
        if reason:
            raise BadRequest(f"URI for web-download does not pass filtering: {reason}.")
        return parts

    def check_address(self, address: Address) -> None:
        """Raise BadRequest for an address that users must not reach through us."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self.allowed if network.version == address.version):
            return
        refused = any(
            address in network for network in (*REFUSED_NETWORKS, *self.refused) if network.version == address.version
        )
        inner = address
        if isinstance(address, ipaddress.IPv6Address) and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if refused or not inner.is_global or inner.is_multicast or inner.is_reserved:
            raise BadRequest(f"URI for web-download does not pass filtering: {address} is not a public address.")

    def resolve(self, host: str, port: int) -> list[Address]:
        """Every address of a host, all of them allowed. Raises BadRequest."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise BadRequest(f"The host {host} was not found: {_reason(error)}.") from None
        addresses = list(dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found))
        for address in addresses:
            self.check_address(address)
        return addresses


@dataclass(frozen=True, slots=True)
class Download:
    """A response that is being read. `length` in bytes, where the server says it."""

    pieces: Iterator[bytes]
    length: int | None


def fetch(url: str, reach: Reach) -> Download:
    """GET the URL. Raises BadRequest in words for users: not allowed, not found, not reachable, cut off."""
    for _ in range(REDIRECTIONS + 1):
        parts = reach.check_url(url)
        connection = _connect(parts, reach)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"Host": parts.netloc, "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "sixstack"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise BadRequest(f"{parts.hostname} did not answer: {_reason(error)}.") from None
        location = response.headers.get("Location")
        if response.status in (301, 302, 303, 307, 308) and location:
            connection.close()
            url = urljoin(url, location)
            continue
        if response.status != 200:
            connection.close()
            raise BadRequest(f"{parts.hostname} answered {response.status} {response.reason}.")
        return Download(_pieces(connection, response), response.length)
    raise BadRequest(f"The URL redirects more than {REDIRECTIONS} times.")


def _connect(parts: SplitResult, reach: Reach) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    error: Exception | None = None
    for address in reach.resolve(host, port):
        try:
            plain = socket.create_connection((str(address), port), timeout=CONNECT_SECONDS)
        except OSError as failure:
            error = failure
            continue
        try:
            _check_not_ourselves(plain, address, reach)
            plain.settimeout(READ_SECONDS)
            connection = http.client.HTTPConnection(host, port)
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
            return connection
        except OSError as failure:
            plain.close()
            error = failure
        except BaseException:
            plain.close()
            raise
    raise BadRequest(f"{host} cannot be reached: {_reason(error)}.")


def _check_not_ourselves(connected: socket.socket, address: Address, reach: Reach) -> None:
    """A connection whose two ends have one address ends on this machine."""
    if connected.getsockname()[0] == connected.getpeername()[0] and not any(
        address in network for network in reach.allowed if network.version == address.version
    ):
        raise BadRequest("URI for web-download does not pass filtering: that is this cloud itself.")


def _pieces(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read1(READ_BYTES):  # what is here: of a slow server somebody wants to see that it is
            yield piece
        if response.length:
            raise BadRequest("The download broke off before it was complete.")
    except (OSError, http.client.HTTPException) as error:
        raise BadRequest(f"The download broke off: {_reason(error)}.") from None
    finally:
        response.close()
        connection.close()


def _reason(error: Exception | None) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
