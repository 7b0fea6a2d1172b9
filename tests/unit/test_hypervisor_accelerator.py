"""Accelerator selection for new guests and the stored result of the KVM probe."""

import shutil
from pathlib import Path

import pytest

from hypervisor.qemu import accelerator
from hypervisor.qemu.accelerator import AcceleratorSelector, SelectedAccelerator, probe, probe_rom


class FakeSelector(AcceleratorSelector):
    """Counts probes; each returns `answer`."""

    probes = 0
    answer: str | None = None

    def _probe(self, timeout_seconds: float = 0) -> str | None:
        self.probes += 1
        return self.answer


@pytest.fixture
def kvm_looks_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "kvm_unavailable_reason", lambda: None)


def test_tcg_is_used_when_configured(tmp_path: Path) -> None:
    assert AcceleratorSelector("tcg", tmp_path / "memory").select().accelerator == "tcg"


def test_unavailable_kvm_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "kvm_unavailable_reason", lambda: "There is no /dev/kvm.")
    asked = FakeSelector("auto", tmp_path / "memory")
    assert asked.select() == SelectedAccelerator("tcg", "There is no /dev/kvm.")
    assert asked.probes == 0


def test_a_probe_is_made_once_a_boot(tmp_path: Path, kvm_looks_good: None) -> None:
    first, second = FakeSelector("auto", tmp_path / "memory"), FakeSelector("auto", tmp_path / "memory")
    assert first.select() == first.select() == second.select() == SelectedAccelerator("kvm")
    assert (first.probes, second.probes) == (1, 0)


def test_kvm_that_fails_its_probe_is_not_used(tmp_path: Path, kvm_looks_good: None) -> None:
    asked = FakeSelector("auto", tmp_path / "memory")
    asked.answer = "too slow"
    assert asked.select() == SelectedAccelerator("tcg", "too slow")


def test_failed_guest_does_not_disable_kvm(tmp_path: Path, kvm_looks_good: None) -> None:
    asked = FakeSelector("auto", tmp_path / "memory")
    assert asked.select() == SelectedAccelerator("kvm")
    asked.recheck()
    assert asked.probes == 2
    asked.recheck()  # too soon after the last probe
    assert asked.probes == 2
    assert asked.select() == SelectedAccelerator("kvm")


def test_a_probe_that_fails_later_is_remembered(tmp_path: Path, kvm_looks_good: None) -> None:
    first = FakeSelector("auto", tmp_path / "memory")
    assert first.select() == SelectedAccelerator("kvm")
    first.answer = "the probe failed"
    first.recheck()
    assert first.select() == SelectedAccelerator("tcg", "the probe failed")
    assert FakeSelector("auto", tmp_path / "memory").select() == SelectedAccelerator("tcg", "the probe failed")


def test_configured_kvm_is_kept(tmp_path: Path, kvm_looks_good: None) -> None:
    asked = FakeSelector("kvm", tmp_path / "memory")
    assert asked.select() == SelectedAccelerator("kvm")
    asked.answer = "the probe failed"
    asked.recheck()
    assert not asked.may_fall_back()
    assert asked.select() == SelectedAccelerator("kvm")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "another boot", "choice": {"accelerator": "tcg"}}'])
def test_results_of_another_boot_and_broken_files_are_ignored(
    tmp_path: Path, kvm_looks_good: None, content: str
) -> None:
    memory = tmp_path / "memory"
    memory.write_text(content)
    assert FakeSelector("auto", memory).select() == SelectedAccelerator("kvm")


def test_the_probe_starts_where_a_processor_does() -> None:
    rom = probe_rom()
    assert len(rom) == 65536
    assert rom[0xFFF0:0xFFF5] == bytes.fromhex("ea000000f0")


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu is not installed")
def test_the_probe_counts_under_tcg() -> None:
    assert probe("qemu-system-x86_64", "tcg") is None
    assert "failed" in (probe("qemu-system-x86_64", "no-such-accelerator") or "")
