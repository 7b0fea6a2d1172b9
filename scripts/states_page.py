"""Writes docs/states.md from the table of actions in compute_api/states.py: `python scripts/states_page.py`."""

from pathlib import Path

from compute_api.states import ACTIONS, Action, TaskState, VmState, status

PAGE = Path(__file__).parent.parent / "docs" / "states.md"

INTRODUCTION = """\
# States of a server

`python scripts/states_page.py` generates this page from the table in `compute_api/states.py`; a test fails when it is
not current.

A server has three states: `vm_state`, the resting state; `task_state`, the running action if any; and `power_state`,
reported by its host. The `status` in the API is derived from the first two and not stored.

An action starts with one UPDATE that checks `vm_state` and that no other action is running, sets `task_state` and
increments the generation. It ends with the completion reported by the host, which is discarded if the generation
or task has changed: some actions (delete, hard reboot) may interrupt others. An action past its deadline has failed.
"""

RESTING = [state for state in VmState if state not in (VmState.SHELVED, VmState.DELETED)]
COMMON = ("delete",)


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join(
        [INTRODUCTION, "## Diagram", "", *_drawing(), "", "## Actions", "", *_actions(), "", *_statuses(), ""]
    )


def _drawing() -> list[str]:
    """Return a Mermaid diagram, without actions that are allowed in all states or do not change the state."""
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
