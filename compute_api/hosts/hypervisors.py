"""Hypervisors, one for each host: lookup, search and pages for the compute API."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.core import errors
from compute_api.hosts import hosts
from compute_api.models import Host


def find(session: Session, hypervisor_id: str, *, by_uuid: bool) -> Host:
    """Return the host with this UUID, or with this number unless `by_uuid`. Raises NotFound."""
    for host in hosts.list_hosts(session):
        if identify(host, by_uuid=by_uuid) == hypervisor_id.lower():
            return host
    raise errors.NotFound(f"Hypervisor with ID '{hypervisor_id}' could not be found.")


def search(session: Session, pattern: str) -> list[Host]:
    """List the hosts whose names contain the pattern. Raises NotFound when there is none."""
    found = [host for host in hosts.list_hosts(session) if pattern in host.name]
    if not found:
        raise errors.NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return found


def list_after(known: Sequence[Host], marker: str | None, *, by_uuid: bool) -> list[Host]:
    """Return the hosts after the marker, an id. Raises BadRequest for an unknown marker."""
    if marker is None:
        return list(known)
    for index, host in enumerate(known):
        if identify(host, by_uuid=by_uuid) == marker:
            return list(known[index + 1 :])
    raise errors.BadRequest(f"marker [{marker}] not found")


def identify(host: Host, *, by_uuid: bool) -> str:
    """Return the hypervisor's id as text: its UUID or its number."""
    return host.id if by_uuid else str(host.seq)
