"""Fallback to TCG: a guest that fails under KVM is restarted under TCG; other guests keep KVM.

The tests simulate KVM with TCG: only the command line of qemu selects tcg.
"""

from pathlib import Path
from typing import Any

import pytest

from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import MachineSpec, MachineState
from hypervisor.base.paths import MachinePaths
from hypervisor.base.runtime_state import load_runtime_state
from hypervisor.machines import launch
from hypervisor.qemu import accelerator, qmp
from hypervisor.qemu.accelerator import AcceleratorSelector
from hypervisor.qemu.command import OpenFiles, qemu_command
from tests.host.support import HostMaker, OneImage, image_ref, make_spec


@pytest.fixture
def pretend_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM passes the static checks and the probe."""

    def command(spec: MachineSpec, files: OpenFiles, *, accelerator: str, **more: Any) -> list[str]:
        return qemu_command(spec, files, accelerator="tcg", **more)

    monkeypatch.setattr(launch, "qemu_command", command)
    monkeypatch.setattr(accelerator, "kvm_unavailable_reason", lambda: None)
    monkeypatch.setattr(AcceleratorSelector, "_probe", lambda self, *_: None)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ids of machines whose guests are in state `internal-error` under KVM."""
    failing: set[str] = set()
    real = qmp.query_state

    def state(path: Path, **more: Any) -> tuple[MachineState, str]:
        paths = MachinePaths(path.parent)
        if paths.directory.name in failing and load_runtime_state(paths).accelerator == "kvm":
            return MachineState.CRASHED, "internal-error"
        return real(path, **more)

    monkeypatch.setattr(qmp, "query_state", state)
    return failing


@pytest.mark.usefixtures("pretend_kvm")
def test_only_the_failed_guest_restarts_under_tcg(make_host: HostMaker, blank_image: Path, fails: set[str]) -> None:
    host = make_host(OneImage(blank_image), accelerator="auto")
    one, two, three = (make_spec(number, image_ref(blank_image, "raw", 1 << 20)) for number in (1, 2, 3))
    for spec in (one, two):
        assert host.ensure_running(spec).accelerator == "kvm"
    fails.add(one.id)
    assert host.report(one.id).state is MachineState.RUNNING  # no crash is reported before the restart under TCG
    host.repair()
    report = host.report(one.id)
    assert (report.state, report.accelerator) == (MachineState.RUNNING, "tcg")
    assert host.report(two.id).accelerator == "kvm"
    assert host.ensure_running(three).accelerator == "kvm"
    described = host.describe()
    assert (described.accelerator, described.accelerator_reason) == ("kvm", None)
    for spec in (one, two, three):
        host.remove(spec.id)


@pytest.mark.usefixtures("pretend_kvm")
def test_a_host_switches_to_tcg_when_its_probe_fails(
    make_host: HostMaker, blank_image: Path, fails: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host(OneImage(blank_image), accelerator="auto")
    one, two = (make_spec(number, image_ref(blank_image, "raw", 1 << 20)) for number in (1, 2))
    assert host.ensure_running(one).accelerator == "kvm"
    monkeypatch.setattr(AcceleratorSelector, "_probe", lambda self, *_: "The probe failed.")
    fails.add(one.id)
    host.repair()
    assert host.describe().accelerator_reason == "The probe failed."
    assert host.ensure_running(two).accelerator == "tcg"
    later = make_host(OneImage(blank_image), accelerator="auto")
    assert later.describe().accelerator_reason == "The probe failed."
    for spec in (one, two):
        later.remove(spec.id)


@pytest.mark.usefixtures("pretend_kvm")
def test_kvm_that_fails_at_startup_falls_back_to_tcg(
    make_host: HostMaker, blank_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = launch.qmp.query_state
    answers = iter([(MachineState.CRASHED, "internal-error")])
    monkeypatch.setattr(qmp, "query_state", lambda path, **more: next(answers, None) or real(path, **more))
    host = make_host(OneImage(blank_image), accelerator="auto")
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    assert host.ensure_running(spec).accelerator == "tcg"
    assert host.report(spec.id).accelerator == "tcg"
    assert host.describe().accelerator == "kvm"
    host.remove(spec.id)


@pytest.mark.usefixtures("pretend_kvm")
def test_required_kvm_fails_with_a_readable_error(
    make_host: HostMaker, blank_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmp, "query_state", lambda path, **more: (MachineState.CRASHED, "internal-error"))
    host = make_host(OneImage(blank_image), accelerator="kvm")
    with pytest.raises(LaunchFailed, match="internal-error"):
        host.ensure_running(make_spec(1, image_ref(blank_image, "raw", 1 << 20)))
    assert host.reports() == []
