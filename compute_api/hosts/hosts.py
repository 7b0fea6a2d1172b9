"""Hosts: registration, heartbeats, and claims of capacity in a single statement."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import uuid4

from sqlalchemy import ARRAY, BindParameter, DateTime, Text, bindparam, func, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app.core import errors
from app.core.settings import Settings
from app.db.database import Json
from compute_api.hosts import liveness
from compute_api.hosts.constraints import HostConstraints
from compute_api.models import Aggregate, AggregateHost, Heartbeat, Host
from hypervisor.api.spec import HostReport


def register(session: Session, now: datetime, report: HostReport, settings: Settings) -> Host:
    """Create or update a host from its report."""
    zone = aggregate_zone(session, report.name) or settings.availability_zone
    host = session.scalar(select(Host).where(Host.name == report.name))
    if host is None:
        host = Host(id=str(uuid4()), name=report.name, created_at=now, vcpus_used=0, memory_mib_used=0, disk_gib_used=0)
        host.heartbeat = Heartbeat(host=report.name, last_seen=now)
        session.add(host)
    host.zone = zone
    host.vcpus = report.vcpus
    host.memory_mib = report.memory_mib
    host.disk_gib = report.disk_gib
    host.vcpus_limit = int(report.vcpus * settings.cpu_ratio)
    host.memory_mib_limit = int(report.memory_mib * settings.memory_ratio)
    host.disk_gib_limit = int(report.disk_gib * settings.disk_ratio)
    host.accelerator = report.accelerator
    host.accelerator_reason = report.accelerator_reason
    host.hypervisor_version = report.hypervisor_version
    host.cpu_model = report.cpu_model
    host.disk_is_low = report.disk_is_low
    host.heartbeat.last_seen = now
    session.flush()
    return host


def aggregate_zone(session: Session, name: str) -> str | None:
    """Return the host's zone by its aggregates, or None."""
    query = (
        select(Aggregate.metadata_)
        .join(AggregateHost, AggregateHost.aggregate_id == Aggregate.id)
        .where(AggregateHost.host == name)
        .order_by(Aggregate.id)
    )
    return next((zone for metadata in session.scalars(query) if (zone := metadata.get("availability_zone"))), None)


def record_heartbeat(session: Session, now: datetime, name: str) -> None:
    """Record a heartbeat."""
    record_heartbeats(session, {name: now})


def record_heartbeats(session: Session, received: Mapping[str, datetime]) -> None:
    """Record heartbeats of many hosts at their times in one statement; unknown hosts are ignored.

    Callers that write many rows take the lock of `liveness.advance_watermark` first: two statements could deadlock. On
    PostgreSQL the transaction commits asynchronously, so give it one of its own; a crash loses heartbeats that are
    repeated ten seconds later.
    """
    if not received:
        return
    values: Mapping[str, object]
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL synchronous_commit = off"))
        values = {"names": list(received), "times": list(received.values())}
        statement = _SEEN_POSTGRESQL
    else:
        values = {"received": {name: at.astimezone(UTC).strftime(SQLITE_TIME) for name, at in received.items()}}
        statement = _SEEN_SQLITE
    session.execute(statement, values, execution_options={"synchronize_session": False})


MAX_NAMED = 4
"""Reasons, and hosts for each reason, that a fault names; the others are counted."""
SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f"
"""SQLAlchemy's storage format of times in SQLite."""

_POSTGRESQL_ROWS = (
    func.unnest(bindparam("names", type_=ARRAY(Text)), bindparam("times", type_=ARRAY(DateTime(timezone=True))))
    .table_valued("name", "seen")
    .render_derived("received")
)
_SEEN_POSTGRESQL = (
    update(Heartbeat)
    .where(Heartbeat.host == _POSTGRESQL_ROWS.c.name)
    .values(last_seen=func.greatest(Heartbeat.last_seen, _POSTGRESQL_ROWS.c.seen))
)
_SQLITE_ROWS = func.json_each(bindparam("received", type_=Json)).table_valued("key", "value", name="received")
_SEEN_SQLITE = (
    update(Heartbeat)
    .where(Heartbeat.host == _SQLITE_ROWS.c.key)
    .values(last_seen=func.max(Heartbeat.last_seen, _SQLITE_ROWS.c.value))
)


def claim(
    session: Session,
    now: datetime,
    *,
    vcpus: int,
    memory_mib: int,
    disk_gib: int,
    zone: str | None,
    host: str | None,
    constraints: HostConstraints | None = None,
) -> Host | None:
    """Claim capacity on the eligible host with the most free memory; None when no host has room.

    A single statement selects and claims, so that concurrent requests never claim the same capacity.
    """
    among = constraints or HostConstraints()
    room = {"vcpus": vcpus, "memory_mib": memory_mib, "disk_gib": disk_gib}
    names = {
        "required": among.required,
        "forbidden": among.forbidden or None,
        "zone": zone or None,
        "host": host or None,
    }
    names |= {"preferred": among.preferred or None, "avoided": among.avoided or None}
    given = {name: value for name, value in names.items() if value is not None}
    wanted = room | given | {"silent_before": liveness.down_before(session, now)}

    def take(locks: str) -> Host | None:
        statement = _claim_statement(frozenset(given), locks)
        return session.scalar(statement, {f"wanted_{name}": value for name, value in wanted.items()})

    if session.get_bind().dialect.name != "postgresql":
        return take("")
    # Concurrent requests may hold the last hosts with room locked and leave some of it: wait for them before failing.
    return take("skip") or take("wait")


@cache
def _claim_statement(given: frozenset[str], locks: str) -> ReturningUpdate[Host]:
    """Return the statement that selects a host and claims capacity, with conditions for the names in `given`.
    Cached: building it takes longer than running it. `locks` is how locked rows are treated: skipped or waited for."""

    def wanted(name: str) -> BindParameter[Any]:
        return bindparam(f"wanted_{name}", expanding=name in ("required", "forbidden", "preferred", "avoided"))

    conditions = {
        "required": Host.name.in_(wanted("required")),
        "forbidden": Host.name.not_in(wanted("forbidden")),
        "zone": Host.zone == wanted("zone"),
        "host": Host.name == wanted("host"),
    }
    orders = {"preferred": Host.name.in_(wanted("preferred")).desc(), "avoided": Host.name.in_(wanted("avoided")).asc()}
    choice = (
        select(Host.seq)
        .join(Heartbeat, Heartbeat.host == Host.name)
        .where(
            Host.disabled.is_(False),
            Host.forced_down.is_(False),
            Host.disk_is_low.is_(False),
            Heartbeat.last_seen >= wanted("silent_before"),
            Host.vcpus_limit - Host.vcpus_used >= wanted("vcpus"),
            Host.memory_mib_limit - Host.memory_mib_used >= wanted("memory_mib"),
            Host.disk_gib_limit - Host.disk_gib_used >= wanted("disk_gib"),
            *(condition for name, condition in conditions.items() if name in given),
        )
        .order_by(*(order for name, order in orders.items() if name in given))
        .order_by((Host.memory_mib_limit - Host.memory_mib_used).desc())
        .limit(1)
    )
    if locks:
        choice = choice.with_for_update(skip_locked=locks == "skip", of=Host)
    return (
        update(Host)
        .where(Host.seq == choice.scalar_subquery())
        .values(
            vcpus_used=Host.vcpus_used + wanted("vcpus"),
            memory_mib_used=Host.memory_mib_used + wanted("memory_mib"),
            disk_gib_used=Host.disk_gib_used + wanted("disk_gib"),
        )
        .returning(Host)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def release(session: Session, name: str, *, vcpus: int, memory_mib: int, disk_gib: int) -> None:
    """Release claimed capacity."""
    session.execute(
        update(Host)
        .where(Host.name == name)
        .values(
            vcpus_used=Host.vcpus_used - vcpus,
            memory_mib_used=Host.memory_mib_used - memory_mib,
            disk_gib_used=Host.disk_gib_used - disk_gib,
        )
        .execution_options(synchronize_session=False)
    )


def explain_no_host(
    session: Session,
    now: datetime,
    *,
    vcpus: int,
    memory_mib: int,
    disk_gib: int,
    zone: str | None,
    constraints: HostConstraints | None = None,
) -> str:
    """Return the "No valid host" message with the reasons by host: reported reasons first; of many hosts a few by
    name."""
    among = constraints or HostConstraints()
    query = select(Host).order_by(Host.seq)
    if zone:
        query = query.where(Host.zone == zone)
    silent = liveness.down_before(session, now)
    reasons: dict[str, list[str]] = {why: [] for _, why in among.host_reasons}
    for host in session.scalars(query):
        free = {
            "MiB of memory": (memory_mib, host.memory_mib_limit - host.memory_mib_used),
            "vCPUs": (vcpus, host.vcpus_limit - host.vcpus_used),
            "GiB of disk": (disk_gib, host.disk_gib_limit - host.disk_gib_used),
        }
        short = [f"{need} {what} wanted, {max(have, 0)} free" for what, (need, have) in free.items() if have < need]
        if exclusion := among.exclusion_reason(host.name):
            short = [exclusion]
        elif host.disabled:
            short = ["it is disabled"]
        elif not is_up(host, silent):
            short = ["it is down"]
        elif host.disk_is_low:
            short = ["its disk is almost full"]
        reasons.setdefault(", ".join(short) or "claimed by a concurrent request", []).append(host.name)
    known = [(why, names) for why, names in reasons.items() if names]
    said = [f"{_join_names(names)}: {why}" for why, names in known[:MAX_NAMED]]
    if rest := sum(len(names) for _, names in known[MAX_NAMED:]):
        said.append(f"{rest} other host{'s' if rest > 1 else ''}: other reasons")
    return f"No valid host was found. {'; '.join(said) or 'There is no host.'}."


def _join_names(names: Sequence[str]) -> str:
    if len(names) <= MAX_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: MAX_NAMED - 1])} and {len(names) - MAX_NAMED + 1} others"


def is_up(host: Host, silent_before: datetime) -> bool:
    """Return whether the host's last heartbeat is not before `liveness.down_before` and it is not forced down."""
    return not host.forced_down and host.last_seen >= silent_before


def is_known(session: Session, name: str) -> bool:
    """Return whether a host of that name is registered."""
    return session.scalar(select(Host.seq).where(Host.name == name)) is not None


_BY_NAME = select(Host).where(Host.name == bindparam("host"))


def is_alive(session: Session, now: datetime, name: str) -> bool:
    """Return whether the host is registered and up."""
    host = session.scalar(_BY_NAME, {"host": name})
    return host is not None and is_up(host, liveness.down_before(session, now))


def may_be_alive(session: Session, now: datetime, name: str) -> bool:
    """Return whether the host is up, or may be while heartbeats are not received."""
    host = session.scalar(select(Host).where(Host.name == name))
    if host is None or host.forced_down:
        return False
    return is_up(host, liveness.down_before(session, now)) or not liveness.is_watermark_current(session, now)


def find(session: Session, name_or_id: str) -> Host:
    """Return a host by name or UUID. Raises NotFound."""
    query = select(Host).where((Host.name == name_or_id) | (Host.id == name_or_id))
    if (found := session.scalar(query)) is None:
        raise errors.NotFound(f"Compute host {name_or_id} could not be found.")
    return found


def find_by_name(session: Session, name: str) -> Host:
    """Return a host by its name only. Raises NotFound."""
    host = find(session, name)
    if host.name != name:
        raise errors.NotFound(f"Compute host {name} could not be found.")
    return host


def is_zone(session: Session, zone: str) -> bool:
    """Return whether the zone has a host."""
    return session.scalar(select(Host.seq).where(Host.zone == zone).limit(1)) is not None


def list_hosts(session: Session) -> list[Host]:
    """Return all hosts in registration order."""
    return list(session.scalars(select(Host).order_by(Host.seq)))


def states(session: Session, now: datetime) -> tuple[tuple[str, str], ...]:
    """Return (name, host_status) of each host: UP, DOWN, or MAINTENANCE when it is disabled."""
    columns = select(Host.name, Host.disabled, Host.forced_down, Heartbeat.last_seen)
    query = columns.join(Heartbeat, Heartbeat.host == Host.name).order_by(Host.seq)
    silent = liveness.down_before(session, now)
    return tuple(
        (name, _state(disabled, not forced_down and last_seen >= silent))
        for name, disabled, forced_down, last_seen in session.execute(query)
    )


def state(host: Host, silent_before: datetime) -> str:
    """Return the host_status: UP, DOWN, or MAINTENANCE when it is disabled."""
    return _state(host.disabled, is_up(host, silent_before))


def _state(disabled: bool, up: bool) -> str:
    return "MAINTENANCE" if disabled else "UP" if up else "DOWN"
