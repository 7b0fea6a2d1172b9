"""`sixstack dns`: prints server names as a zone file or syncs them to a name server; also a child of `sixstack up`."""

import logging
import time
from collections.abc import Collection
from ipaddress import IPv6Address, IPv6Network

from app.core import log_context, processes
from app.core.clock import SystemClock
from app.core.errors import OperatorError
from app.core.settings import Settings
from app.db.database import Database, error_reason, is_unreachable
from app.dns import records as dns_records
from app.dns import settings as dns_settings
from app.dns import status

log = logging.getLogger("sixstack.dns")

TTL = 300


def show(settings: Settings) -> int:
    """Print all records in zone file format; returns the exit status."""
    zone = dns_settings.zone(settings)
    for label, addresses in dns_records.assign_labels(_read_servers(settings)[0]).items():
        for address in addresses:
            print(f"{label}.{zone} {TTL} IN AAAA {address}")
            print(f"{address.reverse_pointer}. {TTL} IN PTR {label}.{zone}")
    return 0


def sync(settings: Settings, every_seconds: float | None) -> int:
    """Sync the name server's records with the servers, once or periodically; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if every_seconds is None:
        _sync(settings)
        return 0
    failing = None
    while True:
        error = _try_sync(settings)
        if error != failing:
            log.error("%s", error) if error else log.info("DNS sync works again")
        failing = error
        status.write(settings, SystemClock().now(), error)
        time.sleep(every_seconds)


def main() -> int:
    """Sync periodically, with the settings in SIXSTACK_*; returns the exit status."""
    log_context.configure()
    processes.end_with_parent()
    settings = Settings.read({})
    return sync(settings, settings.dns_sync_seconds)


def _try_sync(settings: Settings) -> str | None:
    """Sync once; returns the error, or None."""
    try:
        _sync(settings)
    except OperatorError as error:
        return str(error)
    except Exception as error:
        if not is_unreachable(error):
            raise
        return f"the database cannot be reached: {error_reason(error)}"
    return None


def _sync(settings: Settings) -> None:
    zone, reverse = dns_settings.zone(settings), dns_settings.reverse_zones(settings)
    server = dns_settings.name_server(settings)
    from app.dns.client import Record, reverse_name, zone_of

    known, prefixes = _read_servers(settings)

    there = server.records(zone)
    ours = {record for record in there if record.kind == "AAAA" and _is_within(record.value, prefixes)}
    taken = {record.name.removesuffix(f".{zone}") for record in there if record not in ours}
    present, wanted = {zone: ours}, {name: set[Record]() for name in (zone, *reverse)}
    for name in reverse:
        pointers = (record for record in server.records(name) if record.kind == "PTR")
        present[name] = {record for record in pointers if record.value.endswith(f".{zone}")}
    for label, addresses in dns_records.assign_labels(known, taken).items():
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


def _read_servers(settings: Settings) -> tuple[list[dns_records.NamedServer], list[IPv6Network]]:
    database = Database(settings.database, synchronous=settings.sqlite_synchronous)
    try:
        with database.reading() as session:
            return dns_records.list_servers(session), dns_records.list_prefixes(session)
    finally:
        database.dispose()


def _is_within(address: str, prefixes: Collection[IPv6Network]) -> bool:
    return any(IPv6Address(address) in prefix for prefix in prefixes)


if __name__ == "__main__":
    raise SystemExit(main())
