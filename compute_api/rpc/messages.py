"""Conductor messages: what agents and the control plane exchange, free of the ORM, with their JSON form.

A request is {"ask": name, ...}; its answer is {"answer": value} or {"error": message}.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from compute_api.states import PowerState, VmState
from hypervisor.api.spec import HostReport, MachineSpec, SnapshotFile


@dataclass(frozen=True, slots=True)
class ClaimedOperation:
    """An operation that this host has claimed.

    `spec` is None when the server is deleted and only its remains may be on the host. `store_image` uploads the
    snapshot that the operation creates; `image_is_stored` returns whether an earlier attempt has completed the upload.
    """

    operation_id: int
    task: str
    machine_id: str
    spec: MachineSpec | None
    arguments: dict[str, Any]
    store_image: Callable[[SnapshotFile], None]
    image_is_stored: Callable[[], bool]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended. Without an error the action's end state is reached.

    `result` is JSON that the next step of a migration needs. With a `final` error no other host retries.
    """

    error: str | None = None
    power_state: PowerState | None = None
    result: dict[str, Any] | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class DesiredServer:
    """One server that belongs on this host, as the database has it."""

    id: str
    vm_state: str
    task_state: str | None
    generation: int
    power_state: int = PowerState.RUNNING


@dataclass(frozen=True, slots=True)
class HostState:
    """The desired state of one host, for one reconciliation.

    `waiting`: ids of queued operations. `interrupted`: servers with a queued operation that interrupts the running one.
    `overdue`: servers whose operation was failed because it exceeded its deadline. `servers`: every server that belongs
    on the host or may return to it. `images_in_use`: images that these servers' disks are based on.
    """

    waiting: Sequence[int]
    interrupted: Sequence[str]
    overdue: Sequence[str]
    servers: Sequence[DesiredServer]
    images_in_use: frozenset[str]


class Conductor(Protocol):
    """Database access on behalf of one host. Every method raises Unavailable while the database or the broker is
    unreachable; all are safe to retry."""

    def register(self, report: HostReport) -> None: ...

    def heartbeat(self) -> None: ...

    def requeue(self) -> int: ...

    def waiting(self) -> Sequence[int]: ...

    def claim(self, operation_id: int) -> ClaimedOperation | None: ...

    def release(self, operation_id: int) -> None: ...

    def finish(self, operation: ClaimedOperation, outcome: Outcome) -> None: ...

    def interrupted(self) -> Sequence[str]: ...

    def host_state(self) -> HostState: ...

    def spec(self, machine_id: str) -> MachineSpec | None: ...

    def report_state(self, server: DesiredServer, vm_state: VmState, power_state: PowerState, why: str) -> None: ...


class RequestHandler(Protocol):
    """The control plane's side of the requests of one host."""

    def register(self, report: HostReport) -> None: ...

    def requeue(self) -> int: ...

    def waiting(self) -> Sequence[int]: ...

    def claim(self, operation_id: int) -> ClaimedOperation | None: ...

    def release(self, operation_id: int) -> None: ...

    def report(self, operation_id: int, outcome: Outcome) -> None: ...

    def interrupted(self) -> Sequence[str]: ...

    def host_state(self) -> HostState: ...

    def spec(self, machine_id: str) -> MachineSpec | None: ...

    def report_state(self, server: DesiredServer, vm_state: VmState, power_state: PowerState, why: str) -> None: ...

    def image_is_stored(self, operation_id: int) -> bool: ...


def decode_outcome(document: dict[str, Any]) -> Outcome:
    """The outcome of a `report` request."""
    power = document.get("power_state")
    return Outcome(**{**document, "power_state": None if power is None else PowerState(power)})


def decode_host_state(document: dict[str, Any]) -> HostState:
    """The answer to a `host_state` request."""
    return HostState(
        waiting=document["waiting"],
        interrupted=document["interrupted"],
        overdue=document["overdue"],
        servers=[DesiredServer(**server) for server in document["servers"]],
        images_in_use=frozenset(document["images_in_use"]),
    )


def encode_host_state(state: HostState) -> dict[str, Any]:
    """The JSON form of a host state."""
    return {**asdict(state), "images_in_use": sorted(state.images_in_use)}


def decode_spec(document: dict[str, Any] | None) -> MachineSpec | None:
    """The answer to a `spec` request."""
    return None if document is None else MachineSpec.model_validate(document)


def _encode_spec(spec: MachineSpec | None) -> dict[str, Any] | None:
    return None if spec is None else spec.model_dump(mode="json")


def _encode_operation(operation: ClaimedOperation | None) -> dict[str, Any] | None:
    if operation is None:
        return None
    return {
        "operation_id": operation.operation_id,
        "request_id": operation.request_id,
        "task": operation.task,
        "machine_id": operation.machine_id,
        "spec": _encode_spec(operation.spec),
        "arguments": operation.arguments,
    }


REQUESTS: dict[str, Callable[..., Any]] = {
    "register": lambda handler, report: handler.register(HostReport.model_validate(report)),
    "requeue": lambda handler: handler.requeue(),
    "waiting": lambda handler: list(handler.waiting()),
    "claim": lambda handler, operation_id: _encode_operation(handler.claim(operation_id)),
    "release": lambda handler, operation_id: handler.release(operation_id),
    "report": lambda handler, operation_id, result: handler.report(operation_id, decode_outcome(result)),
    "interrupted": lambda handler: list(handler.interrupted()),
    "host_state": lambda handler: encode_host_state(handler.host_state()),
    "spec": lambda handler, machine_id: _encode_spec(handler.spec(machine_id)),
    "report_state": lambda handler, server, vm_state, power_state, why: handler.report_state(
        DesiredServer(**server), VmState(vm_state), PowerState(power_state), why
    ),
    "image_is_stored": lambda handler, operation_id: handler.image_is_stored(operation_id),
}
"""Every request that a host may send, by name. Each is handled for the sending host only."""


def dispatch(handler: RequestHandler, request: dict[str, Any]) -> Any:
    """Handle a request and return its answer. Raises KeyError, TypeError or ValueError for a malformed one."""
    arguments = dict(request)
    return REQUESTS[arguments.pop("ask")](handler, **arguments)
