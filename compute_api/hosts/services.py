"""Services of hosts (nova-compute): lookup, and enabling, disabling and forcing them down."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from compute_api.models import Host

BINARY = "nova-compute"


def find(session: Session, service_id: str | int) -> Host:
    """Return the host of a service by its UUID, or by its number, the id below microversion 2.53. Raises NotFound."""
    matches = Host.seq == service_id if isinstance(service_id, int) else Host.id == service_id.lower()
    host = session.scalar(select(Host).where(matches))
    if host is None:
        raise errors.NotFound(f"Service {service_id} could not be found.")
    return host


def find_by_name(session: Session, name: str, binary: str) -> Host:
    """Return the host of a service by host name and binary. Raises NotFound."""
    host = session.scalar(select(Host).where(Host.name == name))
    if host is None or binary != BINARY:
        raise errors.NotFound(f"Could not find binary {binary} on host {name}.")
    return host


def set_disabled(host: Host, *, disabled: bool, reason: str | None) -> None:
    """Disable or enable scheduling to the host."""
    host.disabled, host.disabled_reason = disabled, reason


def set_forced_down(host: Host, *, forced_down: bool) -> None:
    """Report the host as down whatever its heartbeats, as an operator orders; or stop doing so."""
    host.forced_down = forced_down
