"""Tasks: how the hypervisor executes each kind of operation. All are idempotent."""

import logging
from collections.abc import Callable
from typing import Any

from app.core.errors import NotFound, SixstackError
from compute_api.rpc.messages import ClaimedOperation, Outcome
from compute_api.states import MigrationStep, PowerState, SideTask, TaskState
from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationPlan, MigrationTarget, TransferResult
from hypervisor.api.protocol import Hypervisor
from hypervisor.api.spec import MachineSpec

log = logging.getLogger(__name__)

INTERNAL = "Unexpected error on the host. Its log has details under the id of this server."

TaskFunction = Callable[[Hypervisor, ClaimedOperation, MachineSpec, float], dict[str, Any] | None]


def _start(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.ensure_running(spec)


def _stop(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, grace: float) -> None:
    hypervisor.ensure_stopped(spec.id, grace_seconds=grace)


def _reboot_soft(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, grace: float) -> None:
    hypervisor.reboot(spec, hard=False, grace_seconds=grace)


def _reboot_hard(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, grace: float) -> None:
    hypervisor.reboot(spec, hard=True, grace_seconds=grace)


def _pause(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.pause(spec.id)


def _unpause(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.unpause(spec.id)


def _suspend(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.suspend(spec.id)


def _rebuild(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.rebuild(spec, start=_should_start(work), keep=frozenset(work.arguments.get("keep", ())))


def _resize(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, grace: float) -> None:
    hypervisor.resize(spec, start=_should_start(work), grace_seconds=grace)


def _confirm_resize(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.confirm_resize(spec.id)


def _revert_resize(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.revert_resize(spec, start=_should_start(work))


def _unrescue(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, grace: float) -> None:
    own = spec.model_copy(update={"disks": tuple(disk for disk in spec.disks if disk.name != "rescue")})
    hypervisor.reboot(own, hard=False, grace_seconds=grace)


def _create_image(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    name = work.arguments["image_id"]
    try:
        if not work.image_is_stored():
            work.store_image(hypervisor.snapshot(spec, name))
    except NotFound:
        log.info("Image %s of server %s was deleted before it was complete", name, spec.id)
    finally:
        hypervisor.discard_snapshot(spec.id, name)


def _shelve(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, grace: float) -> None:
    if not work.image_is_stored():
        hypervisor.ensure_stopped(spec.id, grace_seconds=grace)
        _create_image(hypervisor, work, spec, grace)
    if not work.image_is_stored():
        raise HypervisorError("The image of this server was deleted while it was created.")
    hypervisor.remove(spec.id)


def _attach_interface(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.ensure_nics(spec)


def _refresh_interfaces(hypervisor: Hypervisor, _work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    """Update the machine, if it is on this host; otherwise the change applies when it starts."""
    if hypervisor.spec(spec.id) is not None:
        hypervisor.ensure_nics(spec)


def _detach_interface(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    left = tuple(nic for nic in spec.nics if nic.port_id != work.arguments["port_id"])
    hypervisor.ensure_nics(spec.model_copy(update={"nics": left}))


def _offer(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> dict[str, Any]:
    return {"offer": hypervisor.begin_migration(spec, live=_plan(work).live).model_dump(mode="json")}


def _prepare(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> dict[str, Any]:
    return {"landing": hypervisor.prepare_migration(spec, _plan(work)).model_dump(mode="json")}


def _send(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, grace: float) -> dict[str, Any]:
    landing = MigrationTarget.model_validate(work.arguments["landing"])
    return {
        "sent": hypervisor.perform_migration(spec, _plan(work), landing, grace_seconds=grace).model_dump(mode="json")
    }


def _take(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> dict[str, Any]:
    """Take over the guest. After an error the machine is removed, so that it cannot run on both hosts."""
    sent = work.arguments["sent"]
    try:
        return {"taken": hypervisor.finish_migration(spec, _plan(work), sent and TransferResult.model_validate(sent))}
    except HypervisorError as error:
        hypervisor.remove(spec.id)
        return {"taken": False, "why": str(error)}


def _stay(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    hypervisor.cancel_migration(spec, _plan(work))


def _clean(hypervisor: Hypervisor, work: ClaimedOperation, spec: MachineSpec, _grace: float) -> None:
    """Remove what a migration has left on this host, unless a later migration has brought the server here again."""
    known = hypervisor.spec(spec.id)
    if known is None or known.generation <= work.arguments["generation"]:
        hypervisor.remove(spec.id)


def _plan(work: ClaimedOperation) -> MigrationPlan:
    return MigrationPlan.model_validate(work.arguments["plan"])


def _should_start(work: ClaimedOperation) -> bool:
    return bool(work.arguments.get("start", True))


TASKS: dict[str, TaskFunction] = {
    TaskState.SPAWNING: _start,
    TaskState.POWERING_ON: _start,
    TaskState.POWERING_OFF: _stop,
    TaskState.REBOOTING: _reboot_soft,
    TaskState.REBOOTING_HARD: _reboot_hard,
    TaskState.PAUSING: _pause,
    TaskState.UNPAUSING: _unpause,
    TaskState.SUSPENDING: _suspend,
    TaskState.RESUMING: _start,
    TaskState.RESCUING: _reboot_soft,
    TaskState.UNRESCUING: _unrescue,
    TaskState.REBUILDING: _rebuild,
    TaskState.RESIZE_PREP: _resize,
    TaskState.RESIZE_CONFIRMING: _confirm_resize,
    TaskState.RESIZE_REVERTING: _revert_resize,
    TaskState.IMAGE_SNAPSHOT: _create_image,
    TaskState.IMAGE_BACKUP: _create_image,
    TaskState.SHELVING: _shelve,
    TaskState.UNSHELVING: _start,
    SideTask.ATTACH_INTERFACE: _attach_interface,
    SideTask.DETACH_INTERFACE: _detach_interface,
    SideTask.REFRESH_INTERFACES: _refresh_interfaces,
    SideTask.CLEAN: _clean,
    MigrationStep.BEGIN: _offer,
    MigrationStep.PREPARE: _prepare,
    MigrationStep.PERFORM: _send,
    MigrationStep.FINISH: _take,
    MigrationStep.CANCEL: _stay,
    MigrationStep.REVERT: _clean,
}


def carry_out(work: ClaimedOperation, hypervisor: Hypervisor, grace_seconds: float) -> Outcome:
    """Execute an operation and return its outcome; never raises."""
    try:
        if work.task == TaskState.DELETING or work.spec is None:
            hypervisor.remove(work.machine_id)
            return Outcome(power_state=PowerState.NOSTATE)
        result = TASKS[work.task](hypervisor, work, work.spec, grace_seconds)
    except (HypervisorError, SixstackError) as error:
        log.warning("%s of %s: %s", work.task, work.machine_id, error)
        return Outcome(error=str(error))
    except Exception:
        log.exception("%s of %s failed", work.task, work.machine_id)
        return Outcome(error=INTERNAL)
    return Outcome(result=result)
