"""Failure injection after each step of launch, stop, migration and removal: no process, link or file leaks."""

import contextlib
import inspect
import re
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
from hypervisor.api.migration import MigrationPlan, TransferResult
from hypervisor.api.spec import MachineSpec, MachineState
from hypervisor.driver import QemuHypervisor
from hypervisor.qemu import qmp
from tests.host.support import HostMaker, OneImage, image_ref, make_spec, processes, traces

PACKAGE = str(Path(hypervisor.__file__).parent)
# Modules without side effects.
PURE_MODULES = frozenset(
    {"addresses", "command", "config", "config_drive", "errors", "host_facts", "host_filter", "migration", "processes"}
    | {"spec", "tls"}
)
# Functions that only compute or read; an error after one of them equals an error before the step that follows it.
PURE_FUNCTIONS = re.compile(
    r"paths\.(MachinePaths\.|HostPaths\.(machine|owner|is_owned))"
    r"|process\.(boot_id|_parse_start_time|_read_stat|start_time|clean_environment|Identity\.|Process\.(is_alive|children))"
    r"|antispoofing\.(port_addresses|tap_rules|(isolation|routing|_table)_commands|_isolation_rules|_rate_limits|_chain_name|_hex"
    r"|AntiSpoofing\._((gateway|routing|table|segment|mac)_commands|mac_element|record_macs)$)"
    r"|radvd\.(_interface_block|_accepts|RouterAdvertiser\.find_process)"
    r"|segments\.Segments\.(bridges|guest_spec|_advertisement)|links\.Links\.(tap|bridge)$"
    r"|disks\.(is_standalone|overlay_bytes)|qemu_img\._name"
    r"|limits\.(_has_cpu_controller|find_cpu_cgroups)|launch\.(cgroup_name|machine_identity|QemuLaunch\.)"
    r"|source\.(_job_id|_remote_node|MigrationSource\._(host|raise_if_interrupted))$|driver\.(_is_outgoing|_find_target|MigrationDriver\._processor)"
    r"|qmp\.(connect|_try_session)$"
)
# Their caller has to close what they return, so the error is raised on entry.
OPENING = frozenset({("qmp", "listen"), ("links", "Links.open_tap"), ("process", "_PidFd.__enter__")})
# After these steps the machine is registered and running.
COMPLETE = frozenset({("machines", "Machines.launch"), ("driver", "QemuHypervisor.ensure_running")})
# Modules with the steps of migrations only.
MIGRATION = frozenset({"driver", "source", "target"})

Step = tuple[str, str]


def step_of(frame: FrameType) -> Step | None:
    """Module and qualified name of the hypervisor function that a frame runs; None when it does not count as a step.

    Generators and coroutines do not count: an error cannot be raised when they return without skipping their cleanup.
    """
    code = frame.f_code
    if not code.co_filename.startswith(PACKAGE) or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
        return None
    module = Path(code.co_filename).stem
    if module in PURE_MODULES or code.co_name.startswith("<") or code.co_name == "__init__":
        return None
    if PURE_FUNCTIONS.match(f"{module}.{code.co_qualname}"):
        return None
    return module, code.co_qualname


@contextmanager
def record_steps() -> Iterator[list[Step]]:
    """Collect the steps of this thread, in the order in which they end, each once."""
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


def steps_of(action: Callable[[], object]) -> list[Step]:
    with record_steps() as steps:
        action()
    return steps


class FailureInjector:
    """Raises an I/O error after one step of an action and counts how often the step was reached."""

    def __init__(self) -> None:
        self.attempts = 0
        self.injected = 0

    @contextmanager
    def failing_after(self, step: Step) -> Iterator[None]:
        """The first end of the step raises OSError."""
        self.attempts += 1

        def profile(frame: FrameType, event: str, _argument: Any) -> None:
            if event == ("call" if step in OPENING else "return") and step_of(frame) == step:
                self.injected += 1
                raise OSError(5, "Input/output error", "injected")  # the interpreter removes the profile function

        sys.setprofile(profile)
        try:
            yield
        finally:
            sys.setprofile(None)

    def attempt(self, action: Callable[[], object], step: Step) -> bool:
        """Run the action with an error after the step; return whether it completed nevertheless."""
        with self.failing_after(step):
            try:
                action()
            except (HypervisorError, OSError):
                return False
        return True


@pytest.fixture
def injector() -> Iterator[FailureInjector]:
    """Fails the test when most of its errors were injected nowhere, e.g. after functions have been renamed."""
    made = FailureInjector()
    yield made
    assert made.injected > made.attempts / 2, f"{made.injected} errors injected in {made.attempts} attempts"


def left_of(host: QemuHypervisor) -> list[str]:
    return traces(host.config.installation, host.paths.state)


@pytest.fixture
def host(make_host: HostMaker, blank_image: Path) -> QemuHypervisor:
    return make_host(OneImage(blank_image))


def spec_of(image: Path) -> MachineSpec:
    return make_spec(1, image_ref(image, "raw", 1 << 20), memory_mib=32)


def test_a_failed_launch_leaves_nothing(host: QemuHypervisor, blank_image: Path, injector: FailureInjector) -> None:
    spec = spec_of(blank_image)
    steps = steps_of(lambda: host.ensure_running(spec))
    host.remove(spec.id)
    assert left_of(host) == []
    assert {("process", "start"), ("qmp", "query_state"), ("segments", "Segments.claim")} <= set(steps)
    for step in steps:
        if injector.attempt(lambda: host.ensure_running(spec), step) or step in COMPLETE:
            assert host.report(spec.id).state is MachineState.RUNNING, step
            host.remove(spec.id)
        assert left_of(host) == [], step


def test_a_failed_restart_leaves_no_process(host: QemuHypervisor, blank_image: Path, injector: FailureInjector) -> None:
    spec = spec_of(blank_image)
    host.ensure_running(spec)
    host.ensure_stopped(spec.id, grace_seconds=0)
    steps = steps_of(lambda: host.ensure_running(spec))
    for step in steps:
        host.ensure_stopped(spec.id, grace_seconds=0)
        if injector.attempt(lambda: host.ensure_running(spec), step) or step in COMPLETE:
            continue
        assert processes(f"guest={host.config.installation}-") == [], step
        assert host.report(spec.id).state is MachineState.SHUTOFF, step
    host.remove(spec.id)


@pytest.mark.parametrize("deed", ["stop", "remove"])
def test_a_failed_stop_or_removal_can_be_repeated(
    host: QemuHypervisor, blank_image: Path, injector: FailureInjector, deed: str
) -> None:
    spec = spec_of(blank_image)

    def do() -> None:
        if deed == "stop":
            host.ensure_stopped(spec.id, grace_seconds=0)
        else:
            host.remove(spec.id)

    host.ensure_running(spec)
    for step in steps_of(do):
        host.ensure_running(spec)
        injector.attempt(do, step)
        host.repair()
        do()
        assert processes(f"guest={host.config.installation}-") == [], step
        assert host.report(spec.id).state is (MachineState.SHUTOFF if deed == "stop" else MachineState.ABSENT), step
        if deed == "remove":
            assert left_of(host) == [], step
    host.remove(spec.id)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("part", ["prepare", "send", "take"])
def test_a_failed_migration_leaves_one_guest(
    make_host: HostMaker, blank_image: Path, tmp_path: Path, injector: FailureInjector, live: bool, part: str
) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20), nics=(), memory_mib=32)
    wanted = spec.model_copy(update={"generation": 1})
    target = make_host(OneImage(blank_image), state=tmp_path / "two")
    source = make_host(OneImage(blank_image))

    def migrate(step: Step | None) -> list[Step]:
        """Run a migration with an error after `step` of the part; without a step return the steps of the part."""
        source.ensure_running(spec)
        plan = MigrationPlan(id=str(uuid.uuid4()), key=secrets.token_hex(32), live=live, start=True)
        plan = plan.model_copy(update={"offer": source.begin_migration(wanted, live=live)})
        done: dict[str, Any] = {}
        deeds: dict[str, Callable[[], object]] = {
            "prepare": lambda: done.update(landing=target.prepare_migration(wanted, plan)),
            "send": lambda: source.perform_migration(wanted, plan, done["landing"], grace_seconds=0),
            "take": lambda: done.update(taken=target.finish_migration(wanted, plan, TransferResult())),
        }
        steps: list[Step] = []
        for name, deed in deeds.items():
            if name != part:
                deed()
            elif step is None:
                steps = steps_of(deed)
            elif not injector.attempt(deed, step):
                settle(plan, name)
                break
        states = [host.report(spec.id).state for host in (source, target)]
        assert states.count(MachineState.RUNNING) == 1, (step, states)
        target.remove(spec.id)
        source.remove(spec.id)
        assert left_of(source) == [], step
        assert traces(source.config.installation, target.paths.state) == [], step
        return steps

    def settle(plan: MigrationPlan, name: str) -> None:
        """Recover like the control plane after a failed part."""
        if name == "take":
            if target.finish_migration(wanted, plan, TransferResult()):
                return
        else:
            target.remove(spec.id)
        assert source.cancel_migration(spec, plan).state is MachineState.RUNNING

    for step in migrate(None):
        if step[0] in MIGRATION:
            migrate(step)


def test_a_busy_qmp_socket_does_not_fail_a_launch(host: QemuHypervisor, blank_image: Path) -> None:
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


def test_a_lost_pid_file_is_recreated(host: QemuHypervisor, blank_image: Path) -> None:
    spec = spec_of(blank_image)
    host.ensure_running(spec)
    host.paths.machine(spec.id).pid.unlink()
    host.repair()
    assert host.report(spec.id).state is MachineState.RUNNING
    host.ensure_stopped(spec.id, grace_seconds=0)
    assert processes(f"guest={host.config.installation}-") == []
    host.remove(spec.id)


def test_repair_ignores_processes_of_other_hosts(make_host: HostMaker, blank_image: Path, tmp_path: Path) -> None:
    other = make_host(OneImage(blank_image), state=tmp_path / "two")
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20), nics=(), memory_mib=32)
    other.ensure_running(spec)
    host = make_host(OneImage(blank_image))
    host.repair()
    host.remove(spec.id)
    assert other.report(spec.id).state is MachineState.RUNNING
    other.remove(spec.id)
