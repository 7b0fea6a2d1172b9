"""Load of hosts: their servers, the number of running and busy machines, and the resources that projects use."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from compute_api.models import Host, Server
from compute_api.states import PowerState


class HostLoad(NamedTuple):
    """The number of running machines of a host, and of servers with a task."""

    running: int = 0
    busy: int = 0


class Resources(NamedTuple):
    """vCPUs, memory in MiB and disk in GiB."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


class ServerName(NamedTuple):
    """Id and name of a server."""

    id: str
    name: str


def count_machines(session: Session, hosts: Sequence[Host]) -> dict[str, HostLoad]:
    """Count running and busy machines by the host's name. Hosts without servers are omitted."""
    running = func.count().filter(Server.power_state == PowerState.RUNNING)
    busy = func.count().filter(Server.task_state.is_not(None))
    query = select(Server.host, running, busy).where(*_on_hosts(hosts)).group_by(Server.host)
    return {str(host): HostLoad(*counts) for host, *counts in session.execute(query)}


def list_servers(session: Session, hosts: Sequence[Host]) -> dict[str, list[ServerName]]:
    """List the servers of each host by the host's name."""
    query = select(Server.host, Server.id, Server.name).where(*_on_hosts(hosts)).order_by(Server.seq)
    servers: dict[str, list[ServerName]] = {host.name: [] for host in hosts}
    for host, server_id, name in session.execute(query):
        servers[str(host)].append(ServerName(server_id, name))
    return servers


def sum_by_project(session: Session, host: Host) -> dict[str, Resources]:
    """Sum the resources of the flavors of the host's servers by project id."""
    query = select(Server.project_id, Server.flavor).where(Server.host == host.name, Server.deleted.is_(False))
    used: dict[str, Resources] = {}
    for project_id, flavor in session.execute(query):
        before = used.get(project_id, Resources())
        used[project_id] = Resources(
            before.vcpus + flavor["vcpus"],
            before.memory_mib + flavor["ram"],
            before.disk_gib + flavor["disk"] + flavor["ephemeral"],
        )
    return used


def _on_hosts(hosts: Sequence[Host]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Server.host.in_([host.name for host in hosts]), Server.deleted.is_(False)
