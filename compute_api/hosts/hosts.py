"""Hosts: what they have, what is claimed of it, and the one statement that finds room for a server."""

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
    """Write down what a host says of itself; it is made known at the first time."""
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
    """The zone that an aggregate makes of the host; None when none does."""
    query = (
        select(Aggregate.metadata_)
        .join(AggregateHost, AggregateHost.aggregate_id == Aggregate.id)
        .where(AggregateHost.host == name)
        .order_by(Aggregate.id)
    )
    return next((zone for metadata in session.scalars(query) if (zone := metadata.get("availability_zone"))), None)


def record_heartbeat(session: Session, now: datetime, name: str) -> None:
    """The host is alive."""
    record_heartbeats(session, {name: now})


def record_heartbeats(session: Session, heard: Mapping[str, datetime]) -> None:
    """These hosts were alive at these times. One statement for all; hosts that nobody knows are passed over. For many
    at a time lock others out before, as `listening.heard` does: two statements could wait for each other's rows.

    On PostgreSQL the transaction does not wait for the disk: give it one of its own. What a crash there loses is said
    again ten seconds later.
    """
    if not heard:
        return
    values: Mapping[str, object]
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL synchronous_commit = off"))
        values = {"names": list(heard), "times": list(heard.values())}
        statement = _SEEN_POSTGRESQL
    else:
        values = {"heard": {name: at.astimezone(UTC).strftime(SQLITE_TIME) for name, at in heard.items()}}
        statement = _SEEN_SQLITE
    session.execute(statement, values, execution_options={"synchronize_session": False})


MAX_NAMED = 4
"""So many reasons, and hosts for each of them, a fault names; the rest is counted."""
SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f"
"""As SQLAlchemy keeps times in SQLite."""

_POSTGRESQL_ROWS = (
    func.unnest(bindparam("names", type_=ARRAY(Text)), bindparam("times", type_=ARRAY(DateTime(timezone=True))))
    .table_valued("name", "seen")
    .render_derived("heard")
)
_SEEN_POSTGRESQL = (
    update(Heartbeat)
    .where(Heartbeat.host == _POSTGRESQL_ROWS.c.name)
    .values(last_seen=func.greatest(Heartbeat.last_seen, _POSTGRESQL_ROWS.c.seen))
)
_SQLITE_ROWS = func.json_each(bindparam("heard", type_=Json)).table_valued("key", "value", name="heard")
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
    """Take room on the host with the most free memory, or on the one that is named; None when there is none.

    One statement finds and takes, so that two requests never take the same room.
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
    # Others may have the last hosts with room locked and leave some of it: wait for them before saying no.
    return take("passed over") or take("waited for")


@cache
def _claim_statement(given: frozenset[str], locks: str) -> ReturningUpdate[Host]:
    """What finds a host and takes room there, with conditions by those names that are given. Building it takes longer
    than running it. `locks` says what becomes of hosts that others have locked."""

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
        choice = choice.with_for_update(skip_locked=locks == "passed over", of=Host)
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
    """Give back what was claimed."""
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
    """What was missing, for the fault of a server that no host has room for: what hosts have said of it, then the
    rest; of many hosts a few by name."""
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
        reasons.setdefault(", ".join(short) or "taken meanwhile", []).append(host.name)
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
    """Whether the host was heard of lately: not before the time that `listening.silent_before` says."""
    return not host.forced_down and host.last_seen >= silent_before


def is_known(session: Session, name: str) -> bool:
    """Whether there is a host of that name."""
    return session.scalar(select(Host.seq).where(Host.name == name)) is not None


_BY_NAME = select(Host).where(Host.name == bindparam("host"))


def is_alive(session: Session, now: datetime, name: str) -> bool:
    """Whether the host of that name is there and was heard of lately."""
    host = session.scalar(_BY_NAME, {"host": name})
    return host is not None and is_up(host, liveness.down_before(session, now))


def may_be_alive(session: Session, now: datetime, name: str) -> bool:
    """Whether the host of that name is up, or could have come back without anybody hearing of it."""
    host = session.scalar(select(Host).where(Host.name == name))
    if host is None or host.forced_down:
        return False
    return is_up(host, liveness.down_before(session, now)) or not liveness.is_watermark_current(session, now)


def find(session: Session, name_or_id: str) -> Host:
    """A host by name or UUID."""
    query = select(Host).where((Host.name == name_or_id) | (Host.id == name_or_id))
    if (found := session.scalar(query)) is None:
        raise errors.NotFound(f"Compute host {name_or_id} could not be found.")
    return found


def is_zone(session: Session, zone: str) -> bool:
    """Whether a host is in the zone."""
    return session.scalar(select(Host.seq).where(Host.zone == zone).limit(1)) is not None


def list_hosts(session: Session) -> list[Host]:
    """All hosts in the order they came."""
    return list(session.scalars(select(Host).order_by(Host.seq)))


def states(session: Session, now: datetime) -> tuple[tuple[str, str], ...]:
    """Each host and what admins are told of it beside its servers: UP, DOWN, or MAINTENANCE when it is disabled."""
    columns = select(Host.name, Host.disabled, Host.forced_down, Heartbeat.last_seen)
    query = columns.join(Heartbeat, Heartbeat.host == Host.name).order_by(Host.seq)
    silent = liveness.down_before(session, now)
    return tuple(
        (name, _state(disabled, not forced_down and last_seen >= silent))
        for name, disabled, forced_down, last_seen in session.execute(query)
    )


def state(host: Host, silent_before: datetime) -> str:
    """UP, DOWN, or MAINTENANCE when it is disabled."""
    return _state(host.disabled, is_up(host, silent_before))


def _state(disabled: bool, up: bool) -> str:
    return "MAINTENANCE" if disabled else "UP" if up else "DOWN"
