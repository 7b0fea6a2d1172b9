"""Downloads images from user-supplied URLs with protection against server-side request forgery (SSRF).

A host name is resolved once; all its addresses must be allowed, and the connection uses a checked address (no DNS
rebinding). Redirections are checked like the first URL. No proxy, cookies, credentials or transfer compression.
"""

import http.client
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from app.core.errors import BadRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger(__name__)

CONNECT_SECONDS = 15
READ_SECONDS = 60
REDIRECTIONS = 5
READ_BYTES = 1 << 20

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The global unicast space allocated by IANA; excludes loopback, unique local, link-local, site-local and multicast."""
SPECIAL_PURPOSE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments, includes Teredo, which embeds arbitrary IPv4 addresses
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, embeds arbitrary IPv4 addresses
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
"""IANA's special-purpose address registries; for IPv6 the blocks within GLOBAL_UNICAST. Listed here because the result
of `is_global` depends on the Python version."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Restricts download sources. `allowed` networks take precedence over all rules; empty `ports` allows any port."""

    ports: frozenset[int] = frozenset({80, 443})
    allowed: tuple[Network, ...] = ()
    refused: tuple[Network, ...] = ()

    @classmethod
    def from_settings(cls, ports: str, allowed: str, own_prefix: str | None) -> "EgressPolicy":
        """Parse settings: comma-separated ports and networks, and the cloud's own prefix. Raises ValueError."""
        networks = tuple(ipaddress.ip_network(text.strip()) for text in allowed.split(",") if text.strip())
        own = (ipaddress.ip_network(own_prefix, strict=False),) if own_prefix else ()
        return cls(frozenset(int(text) for text in ports.split(",") if text.strip()), networks, own)

    def check_url(self, url: str) -> SplitResult:
        """Validate and split a URL before its host name is resolved. Raises BadRequest."""
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise BadRequest(f"URI for web-download does not pass filtering: {url} is not a valid URL.") from None
        reason = None
        if parts.scheme not in ("http", "https"):
            reason = "the scheme must be http or https"
        elif not parts.hostname:
            reason = "it has no host"
        elif parts.username or parts.password:
            reason = "it contains credentials"
        elif self.ports and port not in self.ports:
            reason = f"port {port} is not allowed"
        elif any(character <= " " or character == "\x7f" for character in url):
            reason = "it contains blanks or control characters"
        if reason:
            raise BadRequest(f"URI for web-download does not pass filtering: {reason}.")
        return parts

    def allows(self, address: Address) -> bool:
        """Return whether users may download from the address."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if _is_in(address, self.allowed):
            return True
        if _is_in(address, self.refused):
            return False
        if isinstance(address, ipaddress.IPv6Address):
            if address in NAT64:
                return self.allows(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
            if address not in GLOBAL_UNICAST:
                return False
        return not _is_in(address, SPECIAL_PURPOSE)

    def resolve(self, host: str, port: int) -> list[Address]:
        """Resolve a host name. Raises BadRequest unless all addresses are allowed.

        The message is the same for names that do not resolve and for rejected addresses, so that it reveals nothing
        about names that only this machine can resolve.
        """
        try:
            results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            log.info("web-download: cannot resolve %s: %s", host, _reason(error))
            raise _not_public(host) from None
        addresses = list(dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in results))
        for address in addresses:
            if not self.allows(address):
                log.info("web-download: refused %s: it resolves to %s", host, address)
                raise _not_public(host)
        return addresses


@dataclass(frozen=True, slots=True)
class Download:
    """A streaming response. `length` is its Content-Length in bytes, if known."""

    pieces: Iterator[bytes]
    length: int | None


def fetch(url: str, egress_policy: EgressPolicy) -> Download:
    """Start the download of a URL, following redirections. Raises BadRequest with a message for users."""
    for _ in range(REDIRECTIONS + 1):
        parts = egress_policy.check_url(url)
        connection = _connect(parts, egress_policy)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"Host": parts.netloc, "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "sixstack"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise BadRequest(f"{parts.hostname} did not respond: {_reason(error)}.") from None
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


def _connect(parts: SplitResult, egress_policy: EgressPolicy) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    error: Exception | None = None
    for address in egress_policy.resolve(host, port):
        try:
            plain = socket.create_connection((str(address), port), timeout=CONNECT_SECONDS)
        except OSError as failure:
            error = failure
            continue
        try:
            if _is_local(plain) and not _is_in(address, egress_policy.allowed):
                log.info("web-download: refused %s: %s is a local address", host, address)
                raise _not_public(host)
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


def _is_local(connected: socket.socket) -> bool:
    """Return whether the peer is this machine: local and remote address are equal."""
    return bool(connected.getsockname()[0] == connected.getpeername()[0])


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _not_public(host: str) -> BadRequest:
    return BadRequest(f"URI for web-download does not pass filtering: {host} was not found or has no public address.")


def _pieces(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read1(READ_BYTES):  # returns available bytes, so that slow transfers show progress
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
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
