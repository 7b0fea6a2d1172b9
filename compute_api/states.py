"""Where a server rests (vm_state), what is under way (task_state), and what may follow what.

    building ──spawn──▶ active ◀──start/stop──▶ stopped        any ──delete──▶ deleted
        │                 │ ▲                                  any ──fails──▶ error
        └──fails──▶ error │ └─reboot, rebuild, unpause…
                          └──pause──▶ paused

Names and values are Nova's (nova/compute/vm_states.py, task_states.py); status is derived from the pair, never stored.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class VmState(StrEnum):
    """Where a server rests."""

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
    """What is under way."""

    SPAWNING = "spawning"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    REBUILDING = "rebuilding"
    DELETING = "deleting"


class PowerState(IntEnum):
    """What the host reports, as Nova numbers it."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done to a server. `name` is Nova's word for it in messages and instance actions.

    `interrupts` are tasks that it may break into; with any other task under way it is refused.
    """

    name: str
    allowed_from: frozenset[VmState]
    task: TaskState
    then: VmState
    power: PowerState
    interrupts: frozenset[TaskState] = frozenset()


SPAWN = Action("create", frozenset({VmState.BUILDING}), TaskState.SPAWNING, VmState.ACTIVE, PowerState.RUNNING)
START = Action("start", frozenset({VmState.STOPPED}), TaskState.POWERING_ON, VmState.ACTIVE, PowerState.RUNNING)
STOP = Action(
    "stop",
    frozenset({VmState.ACTIVE, VmState.ERROR}),
    TaskState.POWERING_OFF,
    VmState.STOPPED,
    PowerState.SHUTDOWN,
)
REBOOT_SOFT = Action("reboot", frozenset({VmState.ACTIVE}), TaskState.REBOOTING, VmState.ACTIVE, PowerState.RUNNING)
REBOOT_HARD = Action(
    "reboot",
    frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED, VmState.ERROR}),
    TaskState.REBOOTING_HARD,
    VmState.ACTIVE,
    PowerState.RUNNING,
    interrupts=frozenset({TaskState.REBOOTING, TaskState.REBOOTING_HARD, TaskState.PAUSING, TaskState.UNPAUSING}),
)
PAUSE = Action("pause", frozenset({VmState.ACTIVE}), TaskState.PAUSING, VmState.PAUSED, PowerState.PAUSED)
UNPAUSE = Action("unpause", frozenset({VmState.PAUSED}), TaskState.UNPAUSING, VmState.ACTIVE, PowerState.RUNNING)
REBUILD = Action(
    "rebuild",
    frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}),
    TaskState.REBUILDING,
    VmState.ACTIVE,
    PowerState.RUNNING,
)
DELETE = Action(
    "delete",
    frozenset(VmState) - {VmState.DELETED},
    TaskState.DELETING,
    VmState.DELETED,
    PowerState.NOSTATE,
    interrupts=frozenset(TaskState),
)

BY_TASK = {
    action.task: action for action in (SPAWN, START, STOP, REBOOT_SOFT, REBOOT_HARD, PAUSE, UNPAUSE, REBUILD, DELETE)
}

_RESTING = {
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

_UNDER_WAY = {
    TaskState.REBOOTING: "REBOOT",
    TaskState.REBOOTING_HARD: "HARD_REBOOT",
    TaskState.REBUILDING: "REBUILD",
}


def status(vm_state: str, task_state: str | None) -> str:
    """The status that clients see, as nova/api/openstack/common.py derives it."""
    resting = _RESTING[VmState(vm_state)]
    if task_state is not None and (under_way := _UNDER_WAY.get(TaskState(task_state))):
        return under_way
    return resting


def vm_states_of(wanted: str) -> list[VmState]:
    """The vm_states that a status filter may mean; empty when there is no such status."""
    upper = wanted.upper()
    tasks = [task for task, name in _UNDER_WAY.items() if name == upper]
    return [state for state, name in _RESTING.items() if name == upper] + (
        [state for task in tasks for state in BY_TASK[task].allowed_from] if tasks else []
    )


def tasks_of(wanted: str) -> list[TaskState]:
    """The tasks whose being under way is the status; empty when it is one of rest."""
    return [task for task, name in _UNDER_WAY.items() if name == wanted.upper()]
