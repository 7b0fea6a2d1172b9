"""An error after any step of launch, stop, migration and removal: nothing is left that is not known."""

import contextlib
import inspect
import secrets
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import hypervisor
from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import Plan, Sent
from hypervisor.api.spec import MachineSpec, MachineState
from hypervisor.driver import QemuHypervisor
from hypervisor.qemu import qmp
from tests.host.support import HostMaker, OneImage, image_ref, make_spec, processes, traces

PACKAGE = str(Path(hypervisor.__file__).parent)
# Without effect outside of this process: values, and questions that are asked again.
PURE = frozenset({"addresses", "command", "config", "config_drive", "errors", "host_facts", "migration", "spec", "tls"})
# What they return has to be closed by the caller, so they fail when they are called.
OPENING = frozenset({("qmp", "listen"), ("links", "Links.open_tap"), ("process", "_Handle.__enter__")})
# From their return on the machine is one that runs and is known.
COMPLETE = frozenset({("machines", "Machines.launch"), ("driver", "QemuHypervisor.ensure_running")})
# Steps that only migrations take.
MIGRATION = frozenset({"driver", "source", "target"})

Step = tuple[str, str]


def step_of(frame: FrameType) -> Step | None:
    """The module and the function that a frame of the hypervisor runs; None for those that do not count as a step.

    Generators and coroutines do not count: an error cannot be raised when they return without skipping their cleanup.
    """
    code = frame.f_code
    if not code.co_filename.startswith(PACKAGE) or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
        return None
    module = Path(code.co_filename).stem
    if module in PURE or code.co_name.startswith("<") or code.co_name == "__init__":
        return None
    return module, code.co_qualname


@contextmanager
def recorded() -> Iterator[list[Step]]:
    """The steps that this thread takes, in the order in which they end, each once."""
    steps: dict[Step, None] = {}

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "return" and (step := step_of(frame)) is not None:
            steps[step] = None

    order: list[Step] = []
    sys.setprofile(profile)
    try:
        yield order
    finally:
        sys.setprofile(None)
        order += steps


@contextmanager
def failing_after(step: Step) -> Iterator[None]:
    """The first time that the step is done ends with an error of the host's storage."""

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == ("call" if step in OPENING else "return") and step_of(frame) == step:
            raise OSError(5, "Input/output error", "injected")  # the interpreter takes the profile function away

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def steps_of(deed: Callable[[], object]) -> list[Step]:
    with recorded() as steps:
        deed()
    return steps


def attempt(deed: Callable[[], object], step: Step) -> bool:
    """Do it with an error after the step; whether it was done in spite of that."""
    with failing_after(step):
        try:
            deed()
        except (HypervisorError, OSError):
            return False
    return True


def left_of(host: QemuHypervisor) -> list[str]:
    return traces(host.config.installation, host.paths.state)


@pytest.fixture
def host(make_host: HostMaker, blank_image: Path) -> QemuHypervisor:
    return make_host(OneImage(blank_image))


def spec_of(image: Path) -> MachineSpec:
    return make_spec(1, image_ref(image, "raw", 1 << 20), memory_mib=32)


def test_a_launch_that_fails_leaves_nothing(host: QemuHypervisor, blank_image: Path) -> None:
    spec = spec_of(blank_image)
    steps = steps_of(lambda: host.ensure_running(spec))
    host.remove(spec.id)
    assert left_of(host) == []
    assert {("process", "start"), ("qmp", "query_state"), ("segments", "Segments.claim")} <= set(steps)
    for step in steps:
        if attempt(lambda: host.ensure_running(spec), step) or step in COMPLETE:
            assert host.report(spec.id).state is MachineState.RUNNING, step
            host.remove(spec.id)
        assert left_of(host) == [], step


def test_a_launch_of_a_known_machine_that_fails_leaves_no_process(host: QemuHypervisor, blank_image: Path) -> None:
    spec = spec_of(blank_image)
    host.ensure_running(spec)
    host.ensure_stopped(spec.id, grace_seconds=0)
    steps = steps_of(lambda: host.ensure_running(spec))
    for step in steps:
        host.ensure_stopped(spec.id, grace_seconds=0)
        if attempt(lambda: host.ensure_running(spec), step) or step in COMPLETE:
            continue
        assert processes(f"guest={host.config.installation}-") == [], step
        assert host.report(spec.id).state is MachineState.SHUTOFF, step
    host.remove(spec.id)


@pytest.mark.parametrize("deed", ["stop", "remove"])
def test_an_end_that_fails_is_repeated(host: QemuHypervisor, blank_image: Path, deed: str) -> None:
    spec = spec_of(blank_image)

    def do() -> None:
        if deed == "stop":
            host.ensure_stopped(spec.id, grace_seconds=0)
        else:
            host.remove(spec.id)

    host.ensure_running(spec)
    for step in steps_of(do):
        host.ensure_running(spec)
        attempt(do, step)
        host.repair()
        do()
        assert processes(f"guest={host.config.installation}-") == [], step
        assert host.report(spec.id).state is (MachineState.SHUTOFF if deed == "stop" else MachineState.ABSENT), step
        if deed == "remove":
            assert left_of(host) == [], step
    host.remove(spec.id)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("part", ["prepare", "send", "take"])
def test_a_migration_that_fails_leaves_one_guest(
    make_host: HostMaker, blank_image: Path, tmp_path: Path, live: bool, part: str
) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20), nics=(), memory_mib=32)
    wanted = spec.model_copy(update={"generation": 1})
    target = make_host(OneImage(blank_image), state=tmp_path / "two")
    source = make_host(OneImage(blank_image))

    def migrate(step: Step | None) -> list[Step]:
        """Steps of the part, or what is left to compare after an error in it."""
        source.ensure_running(spec)
        plan = Plan(id=str(uuid.uuid4()), key=secrets.token_hex(32), live=live, start=True)
        plan = plan.model_copy(update={"offer": source.offer(wanted, live=live)})
        done: dict[str, Any] = {}
        deeds: dict[str, Callable[[], object]] = {
            "prepare": lambda: done.update(landing=target.prepare_landing(wanted, plan)),
            "send": lambda: source.send(wanted, plan, done["landing"], grace_seconds=0),
            "take": lambda: done.update(taken=target.take_over(wanted, plan, Sent())),
        }
        steps: list[Step] = []
        for name, deed in deeds.items():
            if name != part:
                deed()
            elif step is None:
                steps = steps_of(deed)
            elif not attempt(deed, step):
                settle(plan, name)
                break
        states = [host.report(spec.id).state for host in (source, target)]
        assert states.count(MachineState.RUNNING) == 1, (step, states)
        target.remove(spec.id)
        source.remove(spec.id)
        assert left_of(source) == [], step
        assert traces(source.config.installation, target.paths.state) == [], step
        return steps

    def settle(plan: Plan, name: str) -> None:
        """What the control plane asks for when a part has failed."""
        if name == "take":
            if target.take_over(wanted, plan, Sent()):
                return
        else:
            target.remove(spec.id)
        assert source.stay(spec, plan).state is MachineState.RUNNING

    for step in migrate(None):
        if step[0] in MIGRATION:
            migrate(step)


def test_a_crowded_control_socket_fails_no_launch(host: QemuHypervisor, blank_image: Path) -> None:
    spec = spec_of(blank_image)
    control = host.paths.machine(spec.id).qmp
    is_over = threading.Event()

    def crowd() -> None:
        while not is_over.is_set():
            with contextlib.suppress(HypervisorError):
                qmp.query_state(control, timeout_seconds=1)

    with ThreadPoolExecutor(8) as pool:
        try:
            for _ in range(8):
                pool.submit(crowd)
            assert host.ensure_running(spec).state is MachineState.RUNNING
            assert host.report(spec.id).state is MachineState.RUNNING
        finally:
            is_over.set()
    host.remove(spec.id)


def test_a_process_without_files_is_ended(host: QemuHypervisor, blank_image: Path) -> None:
    spec = spec_of(blank_image)
    host.ensure_running(spec)
    other = make_spec(2, image_ref(blank_image, "raw", 1 << 20), memory_mib=32)
    host.ensure_running(other)
    directory = host.paths.machine(spec.id).directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    host.repair()
    assert processes(f"guest={host.config.installation}-{spec.id}") == []
    assert host.report(other.id).state is MachineState.RUNNING
    host.remove(spec.id)
    host.remove(other.id)


def test_a_process_that_lost_its_pid_file_is_known_again(host: QemuHypervisor, blank_image: Path) -> None:
    spec = spec_of(blank_image)
    host.ensure_running(spec)
    host.paths.machine(spec.id).pid.unlink()
    host.repair()
    assert host.report(spec.id).state is MachineState.RUNNING
    host.ensure_stopped(spec.id, grace_seconds=0)
    assert processes(f"guest={host.config.installation}-") == []
    host.remove(spec.id)


def test_processes_of_other_hosts_are_left_alone(make_host: HostMaker, blank_image: Path, tmp_path: Path) -> None:
    other = make_host(OneImage(blank_image), state=tmp_path / "two")
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20), nics=(), memory_mib=32)
    other.ensure_running(spec)
    host = make_host(OneImage(blank_image))
    host.repair()
    host.remove(spec.id)
    assert other.report(spec.id).state is MachineState.RUNNING
    other.remove(spec.id)
