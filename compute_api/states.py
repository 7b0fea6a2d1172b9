"""Server states and actions: vm_state (resting), task_state (action in progress), and allowed transitions.

                       start, stop                 pause, suspend, rescue
    building ─spawn─▶ ACTIVE ◀────────▶ stopped   ACTIVE ◀────────▶ paused, suspended, rescued
        │               │ ▲ └─reboot, rebuild     ACTIVE ◀────────▶ shelved_offloaded (shelve, unshelve)
        ▼        resize ▼ │ confirm, revert
      error           resized                     any ─delete─▶ deleted

`docs/states.md` is generated from the table below. Names and values are Nova's (nova/compute/vm_states.py,
task_states.py), except that Nova confirms a resize without a task. The status is derived from the pair and not stored.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class VmState(StrEnum):
    """The resting state of a server."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    ERROR = "error"
    DELETED = "deleted"


class TaskState(StrEnum):
    """The action in progress."""

    SPAWNING = "spawning"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    REBUILDING = "rebuilding"
    RESIZE_PREP = "resize_prep"
    RESIZE_CONFIRMING = "resize_confirming"
    RESIZE_REVERTING = "resize_reverting"
    IMAGE_SNAPSHOT = "image_snapshot"
    IMAGE_BACKUP = "image_backup"
    SHELVING = "shelving"
    UNSHELVING = "unshelving"
    MIGRATING = "migrating"
    RESIZE_MIGRATING = "resize_migrating"
    DELETING = "deleting"


class SideTask(StrEnum):
    """Tasks that do not claim the server: no action waits for them."""

    ATTACH_INTERFACE = "attach_interface"
    DETACH_INTERFACE = "detach_interface"
    REFRESH_INTERFACES = "refresh_interfaces"
    CLEAN = "migration_clean"


class MigrationStep(StrEnum):
    """Phases of a migration, named as in libvirt; values are stored in the database."""

    BEGIN = "migration_offer"  # source: describe what runs and how it was started
    PREPARE = "migration_prepare"  # destination: start an incoming machine
    PERFORM = "migration_send"  # source: transfer disks and memory
    FINISH = "migration_take"  # destination: take over the guest, or report that it is absent
    CANCEL = "migration_stay"  # source, when FINISH failed: resume the guest (Confirm with cancelled in libvirt)
    REVERT = "migration_revert"  # destination: remove a server whose resize is reverted


class OperationState(StrEnum):
    """The state of an operation; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"


OPEN_OPERATION_STATES = (OperationState.QUEUED, OperationState.RUNNING)


class MigrationStatus(StrEnum):
    """The status of a migration record, as Nova names it."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PRE_MIGRATING = "pre-migrating"
    MIGRATING = "migrating"
    POST_MIGRATING = "post-migrating"
    FINISHED = "finished"
    CONFIRMED = "confirmed"
    REVERTING = "reverting"
    REVERTED = "reverted"
    COMPLETED = "completed"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


class PowerState(IntEnum):
    """The power state that the host reports, with Nova's numbers."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action on a server. `name` is Nova's name in messages and instance actions.

    `interrupts` are tasks in progress that it interrupts; any other task in progress refuses it. Without `then` the
    vm_state stays the same; an operation may override `then`. With `fails_to` None a failure leaves the vm_state
    unchanged. The action fails after `deadline_seconds` plus the guest's shutdown grace period.
    """

    name: str
    allowed_from: frozenset[VmState]
    task: TaskState
    then: VmState | None
    fails_to: VmState | None = VmState.ERROR
    interrupts: frozenset[TaskState] = frozenset()
    deadline_seconds: int = 300


def _from(*states: VmState) -> frozenset[VmState]:
    return frozenset(states)


HOUR = 3600
ACTIVE, STOPPED, PAUSED, SUSPENDED = VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED
ERROR, RESIZED, RESCUED = VmState.ERROR, VmState.RESIZED, VmState.RESCUED

SPAWN = Action(
    name="create", allowed_from=_from(VmState.BUILDING), task=TaskState.SPAWNING, then=ACTIVE, deadline_seconds=HOUR
)
START = Action(name="start", allowed_from=_from(STOPPED), task=TaskState.POWERING_ON, then=ACTIVE)
STOP = Action(name="stop", allowed_from=_from(ACTIVE, ERROR), task=TaskState.POWERING_OFF, then=STOPPED, fails_to=None)
REBOOT_SOFT = Action(name="reboot", allowed_from=_from(ACTIVE), task=TaskState.REBOOTING, then=ACTIVE)
REBOOT_HARD = Action(
    name="reboot",
    allowed_from=_from(ACTIVE, STOPPED, PAUSED, SUSPENDED, ERROR),
    task=TaskState.REBOOTING_HARD,
    then=ACTIVE,
    interrupts=frozenset(
        {
            TaskState.REBOOTING,
            TaskState.REBOOTING_HARD,
            TaskState.PAUSING,
            TaskState.UNPAUSING,
            TaskState.SUSPENDING,
            TaskState.RESUMING,
        }
    ),
)
PAUSE = Action(name="pause", allowed_from=_from(ACTIVE), task=TaskState.PAUSING, then=PAUSED, fails_to=None)
UNPAUSE = Action(name="unpause", allowed_from=_from(PAUSED), task=TaskState.UNPAUSING, then=ACTIVE, fails_to=None)
SUSPEND = Action(
    name="suspend",
    allowed_from=_from(ACTIVE),
    task=TaskState.SUSPENDING,
    then=SUSPENDED,
    fails_to=None,
    deadline_seconds=HOUR,
)
RESUME = Action(
    name="resume",
    allowed_from=_from(SUSPENDED),
    task=TaskState.RESUMING,
    then=ACTIVE,
    fails_to=None,
    deadline_seconds=HOUR,
)
RESCUE = Action(
    name="rescue",
    allowed_from=_from(ACTIVE, STOPPED, ERROR),
    task=TaskState.RESCUING,
    then=RESCUED,
    deadline_seconds=HOUR,
)
UNRESCUE = Action(name="unrescue", allowed_from=_from(RESCUED), task=TaskState.UNRESCUING, then=ACTIVE)
REBUILD = Action(
    name="rebuild",
    allowed_from=_from(ACTIVE, STOPPED, ERROR),
    task=TaskState.REBUILDING,
    then=ACTIVE,
    deadline_seconds=HOUR,
)
RESIZE = Action(name="resize", allowed_from=_from(ACTIVE, STOPPED), task=TaskState.RESIZE_PREP, then=RESIZED)
CONFIRM_RESIZE = Action(
    name="confirmResize", allowed_from=_from(RESIZED), task=TaskState.RESIZE_CONFIRMING, then=ACTIVE, fails_to=None
)
REVERT_RESIZE = Action(name="revertResize", allowed_from=_from(RESIZED), task=TaskState.RESIZE_REVERTING, then=ACTIVE)
CREATE_IMAGE = Action(
    name="createImage",
    allowed_from=_from(ACTIVE, STOPPED, PAUSED, SUSPENDED),
    task=TaskState.IMAGE_SNAPSHOT,
    then=None,
    fails_to=None,
    deadline_seconds=4 * HOUR,
)
BACKUP = Action(
    name="createBackup",
    allowed_from=_from(ACTIVE, STOPPED, PAUSED, SUSPENDED),
    task=TaskState.IMAGE_BACKUP,
    then=None,
    fails_to=None,
    deadline_seconds=4 * HOUR,
)
SHELVE = Action(
    name="shelve",
    allowed_from=_from(ACTIVE, STOPPED, PAUSED, SUSPENDED),
    task=TaskState.SHELVING,
    then=VmState.SHELVED_OFFLOADED,
    fails_to=None,
    deadline_seconds=4 * HOUR,
)
UNSHELVE = Action(
    name="unshelve",
    allowed_from=_from(VmState.SHELVED, VmState.SHELVED_OFFLOADED),
    task=TaskState.UNSHELVING,
    then=ACTIVE,
    fails_to=VmState.SHELVED_OFFLOADED,
    deadline_seconds=HOUR,
)
MIGRATE = Action(
    name="migrate",
    allowed_from=_from(ACTIVE, STOPPED),
    task=TaskState.RESIZE_MIGRATING,
    then=RESIZED,
    fails_to=None,
    deadline_seconds=8 * HOUR,
)
LIVE_MIGRATE = Action(
    name="os-migrateLive",
    allowed_from=_from(ACTIVE, PAUSED),
    task=TaskState.MIGRATING,
    then=None,
    fails_to=None,
    deadline_seconds=8 * HOUR,
)
DELETE = Action(
    name="delete",
    allowed_from=frozenset(VmState) - {VmState.DELETED},
    task=TaskState.DELETING,
    then=VmState.DELETED,
    interrupts=frozenset(TaskState),
)

ACTIONS = (
    *(SPAWN, START, STOP, REBOOT_SOFT, REBOOT_HARD, PAUSE, UNPAUSE, SUSPEND, RESUME, RESCUE, UNRESCUE, REBUILD),
    *(RESIZE, CONFIRM_RESIZE, REVERT_RESIZE, CREATE_IMAGE, BACKUP, SHELVE, UNSHELVE),
    *(MIGRATE, LIVE_MIGRATE, DELETE),
)
BY_TASK = {action.task: action for action in ACTIONS}

POWER = {
    VmState.ACTIVE: PowerState.RUNNING,
    VmState.STOPPED: PowerState.SHUTDOWN,
    VmState.PAUSED: PowerState.PAUSED,
    VmState.SUSPENDED: PowerState.SHUTDOWN,
    VmState.RESCUED: PowerState.RUNNING,
    VmState.RESIZED: PowerState.RUNNING,
    VmState.SHELVED: PowerState.SHUTDOWN,
    VmState.SHELVED_OFFLOADED: PowerState.SHUTDOWN,
    VmState.DELETED: PowerState.NOSTATE,
}
"""The usual power state of each vm_state."""

_STATUS_BY_VM_STATE = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.STOPPED: "SHUTOFF",
    VmState.PAUSED: "PAUSED",
    VmState.SUSPENDED: "SUSPENDED",
    VmState.RESCUED: "RESCUE",
    VmState.RESIZED: "VERIFY_RESIZE",
    VmState.SHELVED: "SHELVED",
    VmState.SHELVED_OFFLOADED: "SHELVED_OFFLOADED",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}

_STATUS_BY_TASK = {
    TaskState.REBOOTING: "REBOOT",
    TaskState.REBOOTING_HARD: "HARD_REBOOT",
    TaskState.REBUILDING: "REBUILD",
    TaskState.RESIZE_PREP: "RESIZE",
    TaskState.RESIZE_MIGRATING: "RESIZE",
    TaskState.MIGRATING: "MIGRATING",
    TaskState.RESIZE_REVERTING: "REVERT_RESIZE",
}


def status(vm_state: str, task_state: str | None) -> str:
    """Return the API status, derived as in nova/api/openstack/common.py."""
    resting = _STATUS_BY_VM_STATE[VmState(vm_state)]
    if task_state is not None and (under_way := _STATUS_BY_TASK.get(TaskState(task_state))):
        return under_way
    return resting


def vm_states_of(wanted: str) -> list[VmState]:
    """Return the vm_states that a status filter matches; empty for an unknown status."""
    upper = wanted.upper()
    tasks = [task for task, name in _STATUS_BY_TASK.items() if name == upper]
    return [state for state, name in _STATUS_BY_VM_STATE.items() if name == upper] + (
        [state for task in tasks for state in BY_TASK[task].allowed_from] if tasks else []
    )


def tasks_of(wanted: str) -> list[TaskState]:
    """Return the tasks that show as the status; empty for the status of a resting state."""
    return [task for task, name in _STATUS_BY_TASK.items() if name == wanted.upper()]
