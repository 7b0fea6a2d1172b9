"""Bulk creation of servers: copies the rows of servers that the domain created, inside PostgreSQL.

Columns that nothing is said of here are copied, so new ones need no change.
"""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from app.db.database import Base
from compute_api.models import Operation, Server, ServerAction
from network_api.models import Port

COUNTED_BY_DATABASE = {"servers.seq", "operations.id", "server_actions.id"}

PREPARE = """
CREATE TEMPORARY TABLE models ON COMMIT DROP AS
    SELECT row_number() OVER (ORDER BY seq) - 1 AS number, * FROM servers WHERE project_id = '{project_id}';
CREATE TEMPORARY TABLE places ON COMMIT DROP AS SELECT row_number() OVER (ORDER BY seq) - 1 AS number, name FROM hosts;
CREATE TEMPORARY TABLE wires ON COMMIT DROP AS
    SELECT p.*, host(s.cidr::cidr)::inet AS prefix FROM ports p JOIN subnets s ON s.id = p.subnet_id LIMIT 1;
CREATE TEMPORARY TABLE copied (n bigint, id text, project_id text, host text, address text, at timestamptz)
    ON COMMIT DROP;
CREATE SEQUENCE pg_temp.numbers;
SET LOCAL session_replication_role = replica
"""
"""The last line disables checks of foreign keys, which the copied rows satisfy."""

NEW = """
TRUNCATE copied;
INSERT INTO copied
    SELECT n, gen_random_uuid(), '{project_id}', places.name,
        host(prefix + ((x'fe'::bigint << 48) + ((n >> 24) << 40) + (x'fffe'::bigint << 24) + (n & x'ffffff'::bigint))),
        now() - interval '3 s' * (1000000 - n)
    FROM (SELECT nextval('pg_temp.numbers') AS n FROM generate_series(1, {size})) numbered
    JOIN places ON places.number = mod(n, (SELECT count(*) FROM places)) CROSS JOIN wires
"""
"""The address is the prefix and the EUI-64 of the MAC below. One was made every three seconds, ending a while ago."""

SERVERS = "copied JOIN models t ON t.number = mod(n, (SELECT count(*) FROM models))"
SERVER = {
    "id": "copied.id",
    "project_id": "copied.project_id",
    "name": "'server-' || n",
    "hostname": "'server-' || n",
    "host": "copied.host",
    "access_ipv6": "address",
    "created_at": "at",
    "updated_at": "at",
    "launched_at": "at",
}
GONE = {
    "deleted": "true",
    "vm_state": "'deleted'",
    "power_state": "0",
    "updated_at": "at + interval '30 minutes'",
    "terminated_at": "at + interval '30 minutes'",
}

PORTS = "copied CROSS JOIN wires t"
PORT = {
    "id": "gen_random_uuid()",
    "device_id": "copied.id",
    "project_id": "copied.project_id",
    "mac_address": "'02:fe:' || regexp_replace(lpad(to_hex(n), 8, '0'), '(..)(..)(..)(..)', '\\1:\\2:\\3:\\4')",
    "ip_address": "address",
    "binding_host": "copied.host",
    "status": "'ACTIVE'",
    "created_at": "at",
    "updated_at": "at",
}

FOLLOWERS = "copied CROSS JOIN (SELECT * FROM {table} LIMIT 1) t"
FOLLOWER = {
    "server_id": "copied.id",
    "project_id": "copied.project_id",
    "host": "copied.host",
    "created_at": "at",
    "started_at": "at",
    "updated_at": "at",
    "finished_at": "at",
}

COUNT = """
UPDATE hosts SET vcpus_used = held.cpus, memory_mib_used = held.ram, disk_gib_used = held.disk FROM (
    SELECT host, sum((flavor->>'vcpus')::int) AS cpus, sum((flavor->>'ram')::int) AS ram,
        sum((flavor->>'disk')::int) AS disk FROM servers WHERE NOT deleted GROUP BY host
    ) held WHERE held.host = hosts.name;
INSERT INTO project_usage (project_id, instances, cores, ram)
    SELECT project_id, count(*), sum((flavor->>'vcpus')::int), sum((flavor->>'ram')::int) FROM servers
    WHERE NOT deleted GROUP BY project_id
    ON CONFLICT (project_id) DO UPDATE SET instances = excluded.instances, cores = excluded.cores, ram = excluded.ram
"""


def prepare(session: Session, project_id: str) -> None:
    """Use the servers of this project as templates, within the session's transaction."""
    _run(session, PREPARE.format(project_id=project_id))


def make(session: Session, project_id: str, size: int, *, gone: bool = False) -> int:
    """Add `size` servers to the project, with `gone` as deleted ones; returns how many."""
    if size <= 0:
        return 0
    _run(session, NEW.format(project_id=project_id, size=size))
    _copy(session, Server, SERVER | GONE if gone else SERVER, SERVERS)
    if not gone:
        _copy(session, Port, PORT, PORTS)
    for model in (Operation, ServerAction):
        _copy(session, model, FOLLOWER, FOLLOWERS.format(table=model.__tablename__))
    return size


def count(session: Session) -> None:
    """Update the resource usage of hosts and quotas."""
    _run(session, COUNT)


def _copy(session: Session, model: type[Base], made: Mapping[str, str], source: str) -> None:
    table = model.__tablename__
    names = [one.name for one in model.__table__.columns if f"{table}.{one.name}" not in COUNTED_BY_DATABASE]
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(made.get(name, f't."{name}"') for name in names)
    _run(session, f"INSERT INTO {table} ({columns}) SELECT {values} FROM {source}")


def _run(session: Session, sql: str) -> None:
    session.connection().exec_driver_sql(sql)
