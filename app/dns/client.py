"""DNS client: reads zones by zone transfer and changes them by dynamic update (RFC 2136), signed with TSIG."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone

from app.core.errors import OperatorError

TIMEOUT_SECONDS = 20.0
CHANGES_PER_UPDATE = 200
"""Changes per update message, which is limited to 64 KiB."""


@dataclass(frozen=True, order=True, slots=True)
class Record:
    """A resource record: absolute name, type and data, as in a zone file."""

    name: str
    kind: str
    value: str


class NameServer:
    """Client of the zones' primary name server. Raises OperatorError when the server fails or refuses."""

    def __init__(self, address: str, port: int, key_file: Path | None) -> None:
        self._address, self._port = address, port
        self._key = _read_key(key_file) if key_file else None

    def records(self, zone: str) -> list[Record]:
        """Return all records of the zone."""
        found = dns.zone.Zone(zone, relativize=False)
        try:
            query, _ = dns.xfr.make_query(found, keyring=self._key)
            dns.query.inbound_xfr(self._address, found, query, port=self._port, timeout=TIMEOUT_SECONDS)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise OperatorError(
                f"Zone transfer of {zone} from {self._address} failed: {error or type(error)}"
            ) from None
        return [
            Record(str(name).lower(), dns.rdatatype.to_text(data.rdtype), data.to_text())
            for name, _, data in found.iterate_rdatas()
        ]

    def change(self, zone: str, remove: Sequence[Record], add: Sequence[Record], ttl: int) -> None:
        """Remove and add records. Idempotent: missing or existing records are ignored."""
        changes = [*((record, False) for record in remove), *((record, True) for record in add)]
        for start in range(0, len(changes), CHANGES_PER_UPDATE):
            update = dns.update.UpdateMessage(zone, keyring=self._key)
            for record, is_new in changes[start : start + CHANGES_PER_UPDATE]:
                if is_new:
                    update.add(record.name, ttl, record.kind, record.value)
                else:
                    update.delete(record.name, record.kind, record.value)
            self._send(zone, update)

    def _send(self, zone: str, update: dns.update.UpdateMessage) -> None:
        try:
            answer = dns.query.tcp(update, self._address, port=self._port, timeout=TIMEOUT_SECONDS)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise OperatorError(f"Update of {zone} on {self._address} failed: {error or type(error)}") from None
        if answer.rcode() != dns.rcode.NOERROR:
            raise OperatorError(f"{self._address} refused an update of {zone}: {dns.rcode.to_text(answer.rcode())}.")


def reverse_name(address: IPv6Address) -> str:
    """Return the name of the address's PTR record."""
    return f"{address.reverse_pointer}."


def zone_of(name: str, zones: Iterable[str]) -> str | None:
    """Return the longest of the zones that contain the name, if any."""
    holding = [zone for zone in zones if name.endswith(f".{zone}")]
    return max(holding, key=len, default=None)


def _read_key(path: Path) -> dns.tsig.Key:
    """Read a key in the format of BIND's tsig-keygen."""
    try:
        text = path.read_text()
    except OSError as error:
        raise OperatorError(f"The key file {path} cannot be read: {error.strerror}.") from None
    name = re.search(r'key\s+"?([^"\s{]+)"?\s*\{', text)
    algorithm, secret = (re.search(rf'{word}\s+"?([^";\s]+)"?\s*;', text) for word in ("algorithm", "secret"))
    if name is None or algorithm is None or secret is None:
        raise OperatorError(f"{path} is not a TSIG key file: create one with tsig-keygen.")
    try:
        return dns.tsig.Key(name[1], secret[1], algorithm[1])
    except ValueError as error:
        raise OperatorError(f"{path} is not a TSIG key file: {error}.") from None
