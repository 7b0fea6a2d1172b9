"""Writes docs/states.md from the table of actions in compute_api/states.py: `python scripts/states_page.py`."""

from pathlib import Path

from compute_api.states import ACTIONS, Action, TaskState, VmState, status

PAGE = Path(__file__).parent.parent / "docs" / "states.md"

INTRODUCTION = """\
# States of a server

This page is written by `python scripts/states_page.py` from the table in `compute_api/states.py`; a test fails when
it is not current.

A server has three states. `vm_state` is where it rests, `task_state` is what is under way (nothing most of the time),
`power_state` is what its host reports. The `status` that clients see follows from the first two and is stored nowhere.

One UPDATE begins an action: it checks `vm_state` and that nothing else is under way, sets `task_state`, and raises the
server's generation. The host's report ends it, if generation and task are still the same; a later action that may
interrupt it (delete, hard reboot) makes the report count for nothing. What takes longer than its deadline has failed.
"""

RESTING = [state for state in VmState if state not in (VmState.SHELVED, VmState.DELETED)]
COMMON = ("delete",)


def page() -> str:
    """The whole page."""
    return "\n".join(
        [INTRODUCTION, "## Drawn", "", *_drawing(), "", "## Actions", "", *_actions(), "", *_statuses(), ""]
    )


def _drawing() -> list[str]:
    """A Mermaid diagram. What can be done in every state, and what leads back to where it began, is in the table."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> building"]
    labels: dict[tuple[str, str], list[str]] = {}
    for action in ACTIONS:
        for state in sorted(action.allowed_from):
            then = action.then or state
            if state != then and action.name not in COMMON:
                names = labels.setdefault((state, then), [])
                if action.name not in names:
                    names.append(action.name)
            if action.fails_to and action.name == "create":
                labels.setdefault((state, action.fails_to), []).append("create fails")
    for (state, then), names in labels.items():
        lines.append(f"    {state} --> {then}: {', '.join(names)}")
    lines.append("    active --> stopped: the guest powers off")
    lines.append("    active --> error: an action fails, the guest crashes")
    return [*lines, "```", "", "Every state but `deleted` leads to `deleted` by *delete*."]


def _actions() -> list[str]:
    lines = [
        "| action | allowed in | task | then | when it fails | may interrupt | deadline |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines + [_row(action) for action in ACTIONS]


def _row(action: Action) -> str:
    allowed = (
        "all but deleted" if len(action.allowed_from) == len(VmState) - 1 else ", ".join(sorted(action.allowed_from))
    )
    interrupts = "anything" if action.interrupts == frozenset(TaskState) else ", ".join(sorted(action.interrupts))
    cells = [
        action.name,
        allowed,
        action.task,
        action.then or "as before",
        action.fails_to or "as before",
        interrupts or "nothing",
        f"{action.deadline_seconds} s",
    ]
    return f"| {' | '.join(cells)} |"


def _statuses() -> list[str]:
    lines = ["## Status", "", "| vm_state | status | with a task |", "|---|---|---|"]
    for state in VmState:
        resting = status(state, None)
        others = {
            f"{task} {shown}"
            for action in ACTIONS
            if state in action.allowed_from and (shown := status(state, task := action.task)) != resting
        }
        lines.append(f"| {state} | {resting} | {', '.join(sorted(others))} |")
    return lines


if __name__ == "__main__":
    PAGE.write_text(page())
