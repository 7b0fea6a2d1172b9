"""Host removal: preconditions, deletion of the records, and servers of a host that is lost."""

from datetime import datetime

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.core import errors
from compute_api.hosts import hosts, liveness
from compute_api.models import AggregateHost, Host, Operation, Server
from compute_api.operations import completion, migration_workflow
from compute_api.rpc.messages import Outcome
from compute_api.states import DELETE, OPEN_OPERATION_STATES, PowerState, VmState


def remove(session: Session, now: datetime, name: str) -> None:
    """Delete a host that is down. Raises NotFound, and Conflict while it has servers or is up."""
    host = _lock_host(session, name)
    if host is None:
        raise errors.NotFound(f"Compute host {name} could not be found.")
    check_empty(session, name)
    if hosts.is_up(host, liveness.down_before(session, now)):
        raise errors.Conflict(f"The agent of {name} is running and would register again. Stop it first.")
    delete_record(session, name)


def disable(session: Session, name: str, reason: str) -> bool:
    """Disable a host so that nothing is scheduled to it; waits for claims in progress. Returns False for an unknown
    host."""
    host = _lock_host(session, name)
    if host is None:
        return False
    host.disabled = True
    host.disabled_reason = reason
    session.flush()
    return True


def check_empty(session: Session, name: str) -> None:
    """Raise Conflict while a host has servers or takes part in a migration."""
    if session.scalar(_select_servers(name).with_only_columns(Server.id).limit(1)) is not None:
        raise errors.Conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first."
        )
    if migration_workflow.list_migrating_servers(session, name):
        raise errors.Conflict("Unable to delete compute service that has in-progress migration(s).")


def delete_record(session: Session, name: str) -> None:
    """Delete the host's record and its aggregate memberships. Idempotent."""
    session.execute(delete(AggregateHost).where(AggregateHost.host == name))
    host = _lock_host(session, name)
    if host is not None:
        session.delete(host)
    session.flush()


def abandon_servers(session: Session, now: datetime, name: str) -> int:
    """Give up the servers of a host whose disks are lost; returns how many.

    The servers go to ERROR without a host and can only be deleted. Open operations fail, except deletes, which are
    done.
    """
    error = f"Host {name}, which had the disks of this server, was removed from the cloud."
    waiting = select(Operation).where(Operation.host == name, Operation.state.in_(OPEN_OPERATION_STATES))
    for operation in session.scalars(waiting.order_by(Operation.id)).all():
        outcome = Outcome() if operation.task == DELETE.task else Outcome(error=error, final=True)
        completion.finish(session, now, operation, outcome)
    lost = session.scalars(_select_servers(name).with_for_update()).all()
    for server in lost:
        server.task_state = None
        server.generation += 1
        session.flush()
        completion.apply_reported_state(session, now, server, VmState.ERROR, PowerState.NOSTATE, error)
        server.host = None
    session.flush()
    return len(lost)


def _select_servers(name: str) -> Select[Server]:
    return select(Server).where(Server.host == name, Server.deleted.is_(False))


def _lock_host(session: Session, name: str) -> Host | None:
    return session.scalar(select(Host).where(Host.name == name).with_for_update(of=Host))
