"""A guest that KVM cannot run is started again under TCG, and the host remembers.

KVM is played by TCG here: the command line says tcg, everything else believes in kvm.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from hypervisor import accelerator, qemu, qmp
from hypervisor.accelerator import Accelerators
from hypervisor.errors import LaunchFailed
from hypervisor.machine import MachineSpec, MachineState
from hypervisor.qemu_command import OpenFiles, qemu_command
from tests.host.support import HostMaker, OneImage, image_ref, make_spec


@pytest.fixture
def pretend_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM looks good and passes its probe."""

    def command(spec: MachineSpec, files: OpenFiles, *, accelerator: str, **more: Any) -> list[str]:
        return qemu_command(spec, files, accelerator="tcg", **more)

    monkeypatch.setattr(qemu, "qemu_command", command)
    monkeypatch.setattr(accelerator, "why_no_kvm", lambda: None)
    monkeypatch.setattr(Accelerators, "_probe", lambda self: None)


@pytest.mark.usefixtures("pretend_kvm")
def test_a_guest_that_falls_over_early_goes_on_under_tcg(
    make_host: HostMaker, blank_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host(OneImage(blank_image), accelerator="auto")
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    started = host.ensure_running(spec)
    assert started.accelerator == "kvm"
    assert host.describe().accelerator == "kvm"

    real = qmp.state
    monkeypatch.setattr(
        qmp,
        "state",
        lambda path, **more: (
            (MachineState.CRASHED, "internal-error") if host.describe().accelerator == "kvm" else real(path, **more)
        ),
    )
    deadline = time.monotonic() + 20
    while (report := host.report(spec.id)).state is not MachineState.RUNNING or report.accelerator != "tcg":
        assert time.monotonic() < deadline, report
        time.sleep(0.1)
    described = host.describe()
    assert described.accelerator == "tcg"
    assert "internal-error" in (described.accelerator_reason or "")
    later = make_host(OneImage(blank_image), accelerator="auto")
    assert later.describe().accelerator_reason == described.accelerator_reason
    later.remove(spec.id)


@pytest.mark.usefixtures("pretend_kvm")
def test_kvm_that_refuses_to_start_gives_way_at_once(
    make_host: HostMaker, blank_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = qemu.qmp.state
    answers = iter([(MachineState.CRASHED, "internal-error")])
    monkeypatch.setattr(qmp, "state", lambda path, **more: next(answers, None) or real(path, **more))
    host = make_host(OneImage(blank_image), accelerator="auto")
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    assert host.ensure_running(spec).accelerator == "tcg"
    assert host.report(spec.id).accelerator == "tcg"
    host.remove(spec.id)


@pytest.mark.usefixtures("pretend_kvm")
def test_kvm_that_was_demanded_fails_in_words(
    make_host: HostMaker, blank_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmp, "state", lambda path, **more: (MachineState.CRASHED, "internal-error"))
    host = make_host(OneImage(blank_image), accelerator="kvm")
    with pytest.raises(LaunchFailed, match="internal-error"):
        host.ensure_running(make_spec(1, image_ref(blank_image, "raw", 1 << 20)))
    assert host.reports() == []
