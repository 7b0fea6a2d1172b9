"""State table of server actions, and the page generated from it."""

import importlib.util
from pathlib import Path

from compute_api.states import ACTIONS, BY_TASK, DELETE, POWER, TaskState, VmState

SCRIPT = Path(__file__).parents[2] / "scripts" / "states_page.py"


def test_the_page_about_states_is_current() -> None:
    loader = importlib.util.spec_from_file_location("states_page", SCRIPT)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run: python scripts/states_page.py"


def test_every_task_belongs_to_one_action() -> None:
    assert set(BY_TASK) == set(TaskState)
    assert len(BY_TASK) == len(ACTIONS)


def test_every_state_can_be_left_and_can_be_deleted() -> None:
    for state in set(VmState) - {VmState.DELETED}:
        assert state in DELETE.allowed_from
    assert all(action.then is None or action.then in POWER for action in ACTIONS)
    assert DELETE.interrupts == frozenset(TaskState)
    assert all(action.deadline_seconds > 0 for action in ACTIONS)
