"""`sixstack dns`: the names of servers, printed as a zone file or kept on a name server."""

import logging
import time
from collections.abc import Collection
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from app.db import Database
from app.errors import OperatorError
from app.settings import Settings
from compute_api import names

log = logging.getLogger(__name__)

TTL = 300


def show(settings: Settings) -> int:
    """Print all records, for a zone file; returns the exit status."""
    zone = _zone(settings)
    for label, addresses in names.labels(_read(settings)[0]).items():
        for address in addresses:
            print(f"{label}.{zone} {TTL} IN AAAA {address}")  # noqa: T201
            print(f"{address.reverse_pointer}. {TTL} IN PTR {label}.{zone}")  # noqa: T201
    return 0


def sync(settings: Settings, every_seconds: float | None) -> int:
    """Make the name server's records those of the servers there are, once or for ever; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    while True:
        try:
            _sync(settings)
        except OperatorError as error:
            if every_seconds is None:
                raise
            log.error("%s", error)
        if every_seconds is None:
            return 0
        time.sleep(every_seconds)


def _sync(settings: Settings) -> None:
    try:
        from app.name_server import NameServer, Record, reverse_name, zone_of
    except ImportError:
        raise OperatorError("dnspython is missing: pip install 'sixstack[dns]'") from None
    zone = _zone(settings)
    reverse = [_absolute(name) for name in settings.dns_reverse_zones.split(",") if name.strip()]
    server = NameServer(*_server(settings), settings.dns_key_file)
    known, prefixes = _read(settings)

    there = server.records(zone)
    ours = {record for record in there if record.kind == "AAAA" and _is_within(record.value, prefixes)}
    taken = {record.name.removesuffix(f".{zone}") for record in there if record not in ours}
    present, wanted = {zone: ours}, {name: set[Record]() for name in (zone, *reverse)}
    for name in reverse:
        pointers = (record for record in server.records(name) if record.kind == "PTR")
        present[name] = {record for record in pointers if record.value.endswith(f".{zone}")}
    for label, addresses in names.labels(known, taken).items():
        for address in addresses:
            wanted[zone].add(Record(f"{label}.{zone}", "AAAA", str(address)))
            back = reverse_name(address)
            if (holding := zone_of(back, reverse)) is not None:
                wanted[holding].add(Record(back, "PTR", f"{label}.{zone}"))

    for name, records in wanted.items():
        remove, add = sorted(present[name] - records), sorted(records - present[name])
        server.change(name, remove, add, TTL)
        if remove or add:
            log.info("%s: %d records added, %d removed", name, len(add), len(remove))


def _read(settings: Settings) -> tuple[list[names.Named], list[IPv6Network]]:
    database = Database(settings.database, synchronous=settings.sqlite_synchronous)
    try:
        with database.reading() as session:
            return names.servers(session), names.prefixes(session)
    finally:
        database.dispose()


def _is_within(address: str, prefixes: Collection[IPv6Network]) -> bool:
    return any(IPv6Address(address) in prefix for prefix in prefixes)


def _zone(settings: Settings) -> str:
    if not settings.dns_zone:
        raise OperatorError("SIXSTACK_DNS_ZONE is not set: the zone that servers get their names in.")
    return _absolute(settings.dns_zone)


def _absolute(name: str) -> str:
    return f"{name.strip().rstrip('.').lower()}."


def _server(settings: Settings) -> tuple[str, int]:
    """Address and port of the name server, from ADDRESS or ADDRESS:PORT, IPv6 ones with a port in brackets."""
    text = settings.dns_server.strip()
    parts = urlsplit(f"//[{text}]" if text.count(":") > 1 and "[" not in text else f"//{text}")
    try:
        return str(ip_address(parts.hostname or "")), parts.port or 53
    except ValueError:
        raise OperatorError("SIXSTACK_DNS_SERVER wants ADDRESS or ADDRESS:PORT of the zones' name server.") from None
