"""What an agent and the control plane say to each other, as JSON: one entry for each request that an agent may make.

A request is {"ask": name, ...}; its answer is {"answer": value} or {"error": words}.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from compute_agent.desk import LocalDesk, Survey, Wanted, Work
from compute_api.finishing import Outcome
from compute_api.states import PowerState, VmState
from hypervisor.machine import HostReport, MachineSpec


def outcome(document: dict[str, Any]) -> Outcome:
    """An outcome as it came over the wire."""
    power = document.get("power_state")
    return Outcome(**{**document, "power_state": None if power is None else PowerState(power)})


def wanted(document: dict[str, Any]) -> Wanted:
    """A wanted server as it came over the wire."""
    return Wanted(**document)


def survey(document: dict[str, Any]) -> Survey:
    """A survey as it came over the wire."""
    return Survey(
        waiting=document["waiting"],
        hurried=document["hurried"],
        overdue=document["overdue"],
        wanted=[wanted(one) for one in document["wanted"]],
        images_in_use=frozenset(document["images_in_use"]),
    )


def _survey_document(found: Survey) -> dict[str, Any]:
    return {**asdict(found), "images_in_use": sorted(found.images_in_use)}


def spec(document: dict[str, Any] | None) -> MachineSpec | None:
    """A MachineSpec as it came over the wire."""
    return None if document is None else MachineSpec.model_validate(document)


def _spec_document(found: MachineSpec | None) -> dict[str, Any] | None:
    return None if found is None else found.model_dump(mode="json")


def _work_document(work: Work | None) -> dict[str, Any] | None:
    if work is None:
        return None
    return {
        "operation_id": work.operation_id,
        "task": work.task,
        "machine_id": work.machine_id,
        "spec": _spec_document(work.spec),
        "arguments": work.arguments,
        "request_id": work.request_id,
    }


REQUESTS: dict[str, Callable[..., Any]] = {
    "register": lambda desk, report: desk.register(HostReport.model_validate(report)),
    "requeue": lambda desk: desk.requeue(),
    "waiting": lambda desk: list(desk.waiting()),
    "claim": lambda desk, operation_id: _work_document(desk.claim(operation_id)),
    "give_back": lambda desk, operation_id: desk.give_back(operation_id),
    "report": lambda desk, operation_id, result: desk.report(operation_id, outcome(result)),
    "hurried": lambda desk: list(desk.hurried()),
    "survey": lambda desk: _survey_document(desk.survey()),
    "spec": lambda desk, machine_id: _spec_document(desk.spec(machine_id)),
    "tell": lambda desk, one, vm_state, power_state, why: desk.tell(
        wanted(one), VmState(vm_state), PowerState(power_state), why
    ),
    "image_is_stored": lambda desk, operation_id: desk.image_is_stored(operation_id),
}
"""What an agent may ask for, each carried out at the desk of the host that asks and of no other."""


def carry_out(desk: LocalDesk, request: dict[str, Any]) -> Any:
    """The answer to a request. Raises KeyError, TypeError or ValueError for one that is none."""
    arguments = dict(request)
    return REQUESTS[arguments.pop("ask")](desk, **arguments)
