"""Operation completion: applies the outcome that a host reports to the server, its ports, claims and images."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.db.database import after_commit
from compute_api import system_metadata
from compute_api.faults import fault, mark_failed
from compute_api.flavors import history
from compute_api.hosts import hosts
from compute_api.models import Operation, Server
from compute_api.operations import interfaces, migration_workflow, operations, retry, snapshots
from compute_api.rpc.messages import Outcome
from compute_api.scheduler import claims, scheduling
from compute_api.states import (
    BACKUP,
    BY_TASK,
    CONFIRM_RESIZE,
    CREATE_IMAGE,
    DELETE,
    POWER,
    REBUILD,
    RESCUE,
    RESIZE,
    REVERT_RESIZE,
    SHELVE,
    SPAWN,
    UNRESCUE,
    UNSHELVE,
    MigrationStep,
    OperationState,
    PowerState,
    SideTask,
    TaskState,
    VmState,
)
from image_api import images
from image_api.models import Image
from image_api.states import ImageStatus
from network_api.resources import ports

IMAGE_STORE = "image_store"
"""Key in `session.info` of the image store, from which bytes of removed images are deleted."""

SUPERSEDED = "Overtaken by another action"
IMAGE_MAKERS = frozenset({CREATE_IMAGE.task, BACKUP.task, SHELVE.task})


def finish(session: Session, now: datetime, operation: Operation, outcome: Outcome) -> bool:
    """Record how an operation ended; returns False when a later action has superseded it."""
    if operation.task in list(SideTask):
        return _finish_side_task(session, now, operation, outcome)
    if operation.task in list(MigrationStep):
        if not migration_workflow.finish(session, now, operation, outcome.error, outcome.result):
            mark_superseded(session, now, operation)
            return False
        return True
    query = select(Server).where(
        Server.id == operation.server_id,
        Server.generation == operation.generation,
        Server.task_state == operation.task,
        Server.deleted.is_(False),
    )
    server = session.scalar(query.with_for_update())
    if server is None:
        mark_superseded(session, now, operation)
        return False
    action, error = BY_TASK[TaskState(operation.task)], outcome.error
    if error and action.task in retry.RESCHEDULABLE and not outcome.final:
        error = retry.reschedule_after_failure(session, now, server, operation, error)
        if error is None:
            return True
    operations.close(session, now, operation.id, OperationState.FAILED if error else OperationState.DONE, outcome.error)
    operations.end_action(session, now, server.id, operation.request_id, error)
    server.task_state = None
    server.updated_at = now
    if error:
        if action.fails_to is not None:
            mark_failed(server, now, error)
            server.vm_state = action.fails_to
    elif action.then is not None:
        then = VmState(operation.arguments.get("then", action.then))
        server.vm_state = then
        server.power_state = operation.arguments.get("power_state", outcome.power_state or POWER[then])
        server.fault = {}
        if server.launched_at is None and server.power_state == PowerState.RUNNING:
            server.launched_at = now  # usage is counted from here on
    if ending := _COMPLETIONS.get(action.task):
        ending(session, now, server, operation, outcome.error is None)
    if not server.deleted:
        ports.set_status(session, server.id, server.power_state == PowerState.RUNNING)
    return True


def mark_superseded(session: Session, now: datetime, operation: Operation) -> None:
    """Close an operation whose server has a later action. An unfinished image that it was to create is removed."""
    operations.close(session, now, operation.id, OperationState.SUPERSEDED)
    operations.end_action(session, now, operation.server_id, operation.request_id, SUPERSEDED)
    if operation.task in list(MigrationStep):
        migration_workflow.mark_superseded(session, now, operation)
    if operation.task in IMAGE_MAKERS:
        remove_image(session, operation.arguments["image_id"], only_unfinished=True)


def apply_reported_state(
    session: Session, now: datetime, server: Server, vm_state: VmState, power: PowerState, why: str
) -> bool:
    """Record an actual state that differs from the desired one; returns False when an action has begun since."""
    statement = (
        update(Server)
        .where(
            Server.id == server.id,
            Server.generation == server.generation,
            Server.task_state.is_(None),
            Server.deleted.is_(False),
        )
        .values(vm_state=vm_state, power_state=power, updated_at=now)
    )
    if vm_state is VmState.ERROR:
        statement = statement.values(fault=fault(now, why))
    counted = session.scalar(statement.returning(Server.id)) is not None
    if counted:
        ports.set_status(session, server.id, power == PowerState.RUNNING)
        if power == PowerState.PAUSED and why:
            _record_pause(session, now, server, why)
    return counted


def _record_pause(session: Session, now: datetime, server: Server, why: str) -> None:
    """Record a pause by the host as a failed instance action of the server's owner."""
    request_id = f"req-{uuid4()}"
    operations.begin_action(session, now, server, "pause", request_id, server.user_id)
    operations.end_action(session, now, server.id, request_id, why)


def mark_deleted(session: Session, now: datetime, server: Server) -> None:
    """Mark the server deleted and release its ports, claims and images. The row stays for queries of deleted
    servers."""
    ports.release(session, now, server.id)
    migration_workflow.close_all(session, now, server)
    claims.release(session, server)
    if shelved := system_metadata.SHELVED.pop(server):
        remove_image(session, shelved["image_id"])
    server.system_metadata = {}
    server.vm_state = VmState.DELETED
    server.power_state = PowerState.NOSTATE
    server.task_state = None
    server.deleted = True
    server.terminated_at = server.updated_at = now
    server.admin_pass = None
    server.user_data = None


def remove_image(session: Session, image_id: str, *, only_unfinished: bool = False) -> None:
    """Delete an image that was created for a server, and its bytes after the commit."""
    statement = delete(Image).where(Image.id == image_id)
    if only_unfinished:
        statement = statement.where(Image.status != ImageStatus.ACTIVE)
    gone = session.scalar(statement.returning(Image.id).execution_options(synchronize_session=False))
    store = session.info.get(IMAGE_STORE)
    if gone is not None and store is not None:
        after_commit(session, lambda: images.delete_objects(store, gone))


# --- completion of single actions -----------------------------------------------------------------------------------

Completion = Callable[[Session, datetime, Server, Operation, bool], None]


def _end_launch(_session: Session, _now: datetime, server: Server, _operation: Operation, _done: bool) -> None:
    """Forget the password, which only the config drive needs, and the scheduling hints."""
    server.admin_pass = None
    scheduling.clear_hints(server)


def _end_rebuild(session: Session, now: datetime, server: Server, operation: Operation, done: bool) -> None:
    _end_launch(session, now, server, operation, done)
    migration_workflow.finish_evacuation(session, now, server, done=done)


def _end_delete(session: Session, now: datetime, server: Server, _operation: Operation, done: bool) -> None:
    if done:
        mark_deleted(session, now, server)


def _end_rescue(session: Session, now: datetime, server: Server, operation: Operation, done: bool) -> None:
    _end_launch(session, now, server, operation, False)
    if not done:
        system_metadata.RESCUE.pop(server)


def _end_unrescue(_session: Session, _now: datetime, server: Server, _operation: Operation, _done: bool) -> None:
    system_metadata.RESCUE.pop(server)


def _end_resize(session: Session, now: datetime, server: Server, _operation: Operation, done: bool) -> None:
    migration_workflow.finish_resize(session, now, server, done=done)
    if not done:
        resize = system_metadata.RESIZE.get(server)
        current: system_metadata.Resize = {**resize, "flavor": server.flavor, "flavor_id": server.flavor_id}
        server.flavor, server.flavor_id = resize["flavor"], resize["flavor_id"]
        history.remove_reverted_flavor(session, server)
        system_metadata.RESIZE.set(server, current)
        claims.end_resize(session, server)


def _end_confirm(session: Session, now: datetime, server: Server, operation: Operation, done: bool) -> None:
    if done:
        migration_workflow.confirm_resize(session, now, server, operation.request_id)
        claims.end_resize(session, server)


def _end_revert(session: Session, now: datetime, server: Server, _operation: Operation, _done: bool) -> None:
    migration_workflow.finish_revert(session, now, server)
    claims.end_resize(session, server)


def _end_image(session: Session, _now: datetime, _server: Server, operation: Operation, done: bool) -> None:
    if not done:
        remove_image(session, operation.arguments["image_id"], only_unfinished=True)


def _end_backup(session: Session, now: datetime, server: Server, operation: Operation, done: bool) -> None:
    _end_image(session, now, server, operation, done)
    if done:
        for image_id in snapshots.list_expired_backups(session, server.id, operation.arguments):
            remove_image(session, image_id)


def _end_shelve(session: Session, now: datetime, server: Server, operation: Operation, done: bool) -> None:
    image = session.get(Image, operation.arguments["image_id"])
    if not done or image is None:
        _end_image(session, now, server, operation, done=False)
        return
    system_metadata.SHELVED.set(server, {"image_id": image.id, "image": image_reference(image)})
    assert server.host is not None
    hosts.release(session, server.host, **claims.held_resources(server))
    server.host = None


def _end_unshelve(session: Session, now: datetime, server: Server, operation: Operation, done: bool) -> None:
    scheduling.clear_hints(server)
    if done:
        shelved = system_metadata.SHELVED.get(server)
        system_metadata.SHELVED.pop(server)
        system_metadata.ROOT_IMAGE.set(server, shelved["image"])
        remove_image(session, shelved["image_id"])
        _end_launch(session, now, server, operation, done)
        return
    assert server.host is not None
    hosts.release(session, server.host, **claims.held_resources(server))
    server.host = None
    server.power_state = POWER[VmState.SHELVED_OFFLOADED]


_COMPLETIONS: dict[TaskState, Completion] = {
    SPAWN.task: _end_launch,
    REBUILD.task: _end_rebuild,
    DELETE.task: _end_delete,
    RESCUE.task: _end_rescue,
    UNRESCUE.task: _end_unrescue,
    RESIZE.task: _end_resize,
    CONFIRM_RESIZE.task: _end_confirm,
    REVERT_RESIZE.task: _end_revert,
    CREATE_IMAGE.task: _end_image,
    BACKUP.task: _end_backup,
    SHELVE.task: _end_shelve,
    UNSHELVE.task: _end_unshelve,
}


def _finish_side_task(session: Session, now: datetime, operation: Operation, outcome: Outcome) -> bool:
    operations.close(
        session, now, operation.id, OperationState.FAILED if outcome.error else OperationState.DONE, outcome.error
    )
    if operation.task == SideTask.CLEAN:  # no instance action; reconciliation removes leftovers
        return True
    operations.end_action(session, now, operation.server_id, operation.request_id, outcome.error)
    server = session.scalar(select(Server).where(Server.id == operation.server_id, Server.deleted.is_(False)))
    if server is None:
        return False
    if operation.task not in (SideTask.ATTACH_INTERFACE, SideTask.DETACH_INTERFACE):
        return True
    attached = operation.task == SideTask.ATTACH_INTERFACE
    if attached and not outcome.error:
        ports.set_status(session, server.id, server.power_state == PowerState.RUNNING)
    if attached == bool(outcome.error):
        interfaces.release_port(session, now, server, operation.arguments["port_id"])
    return True


def image_reference(image: Image) -> dict[str, Any]:
    """Return the JSON form of `hypervisor.api.spec.ImageRef`."""
    return {
        "id": image.id,
        "disk_format": image.stored_format,
        "size_bytes": image.disk_size or image.size,
        "virtual_size_bytes": image.virtual_size or image.size,
        "sha512": image.disk_hash or (image.os_hash_value if image.os_hash_algo == "sha512" else None),
    }


def deadline_seconds(task: str, grace_seconds: float) -> float:
    """Return the seconds after which a task has failed."""
    if task in list(SideTask):
        return 300 + grace_seconds
    if task in list(MigrationStep):
        return migration_workflow.DEADLINE_SECONDS[MigrationStep(task)] + grace_seconds
    return BY_TASK[TaskState(task)].deadline_seconds + grace_seconds
