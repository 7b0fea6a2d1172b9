"""Interface attachment: plugs and unplugs ports of existing servers, asynchronously, without claiming the server."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api import system_metadata
from compute_api.models import Operation, Server
from compute_api.operations import operations
from compute_api.states import SideTask, VmState
from network_api.errors import IpAddressInUse, PortInUse
from network_api.models import Port
from network_api.resources import networks, ports
from network_api.server_revisions import touch_servers

ALLOWED_FROM = frozenset({VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED})


def attach(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    *,
    port_id: str | None,
    network_id: str | None,
    address: str | None,
    tag: str | None,
    request_id: str,
) -> str:
    """Attach a port to the server; returns the port's id. Raises NotFound, BadRequest, Conflict."""
    _check_state(server, "attach_interface")
    try:
        if port_id is not None:
            port = ports.bind(session, now, port_id, caller, device_id=server.id, host=server.host)
        else:
            chosen = networks.find(session, caller, network_id) if network_id else None
            port = ports.create(
                session,
                now,
                ports.NewPort(
                    project_id=server.project_id,
                    network=chosen or networks.default_network(session, caller),
                    device_id=server.id,
                    device_owner=f"compute:{server.availability_zone or 'nova'}",
                    host=server.host,
                    address=address,
                ),
                chooser=caller,
            )
    except (PortInUse, IpAddressInUse) as error:
        raise errors.BadRequest(error.message) from None
    session.flush()
    touch_servers(session, Port.id == port.id)
    system_metadata.tag_nic(server, port.id, tag)
    _queue_task(session, now, caller, server, SideTask.ATTACH_INTERFACE, port.id, request_id)
    return port.id


def detach(session: Session, now: datetime, caller: Caller, server: Server, port_id: str, request_id: str) -> None:
    """Detach an interface. Its port is deleted or unbound when the host has unplugged it."""
    _check_state(server, "detach_interface")
    if session.scalar(select(Port.id).where(Port.id == port_id, Port.device_id == server.id)) is None:
        raise errors.NotFound(f"Port id {port_id} could not be found.")
    _queue_task(session, now, caller, server, SideTask.DETACH_INTERFACE, port_id, request_id)


def refresh(session: Session, now: datetime, server_ids: Iterable[str], request_id: str) -> None:
    """Queue an update of the servers' interfaces, anti-spoofing rules and metadata after a change of their ports."""
    query = select(Server).where(Server.id.in_([*server_ids]), Server.host.is_not(None), Server.deleted.is_(False))
    for server in session.scalars(query):
        operations.queue(session, now, server, SideTask.REFRESH_INTERFACES, request_id, {})


def release_port(session: Session, now: datetime, server: Server, port_id: str) -> None:
    """Release a port that is not plugged in: delete it if it was created for the server, unbind it otherwise."""
    system_metadata.tag_nic(server, port_id, None)
    address = session.scalar(select(Port.ip_address).where(Port.id == port_id, Port.device_id == server.id))
    ports.release(session, now, server.id, port_id)
    if address and server.access_ipv6 == address:
        left = session.scalars(select(Port.ip_address).where(Port.device_id == server.id).order_by(Port.attached))
        server.access_ipv6 = next((other for other in left if other), "")


def _check_state(server: Server, name: str) -> None:
    if server.host is None:
        raise errors.Conflict(f"Instance {server.id} is not ready")
    if server.vm_state in ALLOWED_FROM and server.task_state is None:
        return
    state = f"task_state {server.task_state}" if server.vm_state in ALLOWED_FROM else f"vm_state {server.vm_state}"
    raise errors.Conflict(f"Cannot '{name}' instance {server.id} while it is in {state}")


def _queue_task(
    session: Session, now: datetime, caller: Caller, server: Server, task: SideTask, port_id: str, request_id: str
) -> Operation:
    operations.begin_action(session, now, server, task, request_id, caller.user_id)
    return operations.queue(session, now, server, task, request_id, {"port_id": port_id})
