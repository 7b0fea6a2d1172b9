"""One operation, carried out: what each task asks of the host. Every one may be carried out twice."""

import logging
from collections.abc import Callable

from compute_agent.desk import Work
from compute_api.servers import Outcome
from compute_api.states import PowerState, TaskState
from hypervisor.errors import HypervisorError
from hypervisor.machine import MachineSpec
from hypervisor.protocol import Hypervisor

log = logging.getLogger(__name__)

INTERNAL = "The host failed in a way nobody expected; its log says more under the id of this server."

Carry = Callable[[Hypervisor, MachineSpec, float], None]


def _run(hypervisor: Hypervisor, spec: MachineSpec, _grace: float) -> None:
    hypervisor.ensure_running(spec)


def _stop(hypervisor: Hypervisor, spec: MachineSpec, grace: float) -> None:
    hypervisor.ensure_stopped(spec.id, grace_seconds=grace)


def _reboot_soft(hypervisor: Hypervisor, spec: MachineSpec, grace: float) -> None:
    hypervisor.reboot(spec, hard=False, grace_seconds=grace)


def _reboot_hard(hypervisor: Hypervisor, spec: MachineSpec, grace: float) -> None:
    hypervisor.reboot(spec, hard=True, grace_seconds=grace)


def _pause(hypervisor: Hypervisor, spec: MachineSpec, _grace: float) -> None:
    hypervisor.pause(spec.id)


def _unpause(hypervisor: Hypervisor, spec: MachineSpec, _grace: float) -> None:
    hypervisor.unpause(spec.id)


TASKS: dict[str, Carry] = {
    TaskState.SPAWNING: _run,
    TaskState.POWERING_ON: _run,
    TaskState.POWERING_OFF: _stop,
    TaskState.REBOOTING: _reboot_soft,
    TaskState.REBOOTING_HARD: _reboot_hard,
    TaskState.PAUSING: _pause,
    TaskState.UNPAUSING: _unpause,
}


def carry_out(work: Work, hypervisor: Hypervisor, grace_seconds: float) -> Outcome:
    """Do it and say how it went; never raises."""
    try:
        if work.task == TaskState.DELETING or work.spec is None:
            hypervisor.remove(work.machine_id)
            return Outcome(power_state=PowerState.NOSTATE)
        TASKS[work.task](hypervisor, work.spec, grace_seconds)
    except HypervisorError as error:
        log.warning("%s of %s: %s", work.task, work.machine_id, error)
        return Outcome(error=str(error))
    except Exception:
        log.exception("%s of %s failed", work.task, work.machine_id)
        return Outcome(error=INTERNAL)
    return Outcome()
