"""qemu-img runs unprivileged, and only through hypervisor/storage/qemu_img.py."""

import ast
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor.api.errors import ImageUnusable
from hypervisor.storage import snapshots
from hypervisor.storage.disks import Base, DiskFile, create_overlay

TOP = Path(__file__).parents[2]
OWNER = TOP / "hypervisor/storage/qemu_img.py"
PACKAGES = (
    "app",
    "compute_agent",
    "compute_api",
    "hypervisor",
    "identity_api",
    "image_api",
    "network_api",
    "volume_api",
)
MIB = 1 << 20
needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up privileges")


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def overlay(tmp_path: Path) -> DiskFile:
    base = tmp_path / "base.raw"
    base.write_bytes(b"guest" * 1000 + bytes(3 * MIB - 5000))
    base.chmod(0o600)
    create_overlay(tmp_path / "root.qcow2", 4 * MIB, Base(base, "raw"))
    return DiskFile("root", tmp_path / "root.qcow2", "qcow2", base, "raw")


def test_one_module_runs_qemu_img() -> None:
    for path in (path for package in PACKAGES for path in (TOP / package).rglob("*.py") if path != OWNER):
        for node in ast.walk(ast.parse(path.read_text())):
            words = (
                node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
            )
            values = [word.value for word in words if isinstance(word, ast.Constant)]
            assert "qemu-img" not in values, f"{path}:{node.lineno}: use hypervisor/storage/qemu_img.py"


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Wrap qemu-img: it appends its privileges, limits and environment to this file, which every user may write."""
    with tempfile.TemporaryDirectory() as name:
        directory, notes = Path(name), Path(name) / "notes"
        directory.chmod(0o755)
        notes.touch()
        notes.chmod(0o666)
        program = directory / "qemu-img"
        program.write_text(
            f"#!/bin/sh\n{{ cat /proc/self/status /proc/self/limits /proc/net/dev; env; }} >>{notes}\n"
            f'exec {shutil.which("qemu-img")} "$@"\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        yield notes


@needs_qemu_img
@needs_root
def test_qemu_img_has_no_privileges_and_no_secrets(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIXSTACK_DATABASE_URL", "postgresql://user:secret@host/cloud")
    disk = overlay(tmp_path)
    snapshots.create_checkpoint(disk)
    snapshots.grow(disk, 5 * MIB)
    snapshots.copy(disk, tmp_path / "copy")
    snapshots.restore_checkpoint(disk)
    seen = recording.read_text()
    uids = [set(line.split()[1:]) for line in seen.splitlines() if line.startswith("Uid:")]
    assert len(uids) >= 6
    assert all(len(each) == 1 and 0x7F00_0000 < int(*each) < 0x7FE0_0000 for each in uids)
    assert len({uid for each in uids for uid in each}) == len(uids), "two runs share a uid"
    for field, value in (("CapEff", "0" * 16), ("CapPrm", "0" * 16), ("CapBnd", "0" * 16), ("NoNewPrivs", "1")):
        assert {line.split()[1] for line in seen.splitlines() if line.startswith(f"{field}:")} == {value}
    limits = [line for line in seen.splitlines() if line.startswith(("Max cpu time", "Max address space"))]
    assert all("unlimited" not in line.split("  ")[1:3] for line in limits)
    assert set(re.findall(r"^ *([a-z0-9-]+): +[0-9]+ +[0-9]+ +[0-9]+ ", seen, re.MULTILINE)) == {"lo"}
    assert "secret" not in seen
    for path in (disk.path, tmp_path / "copy"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (os.geteuid(), 0o600)


@needs_qemu_img
def test_checkpoints_restore_content_and_size(tmp_path: Path) -> None:
    disk = overlay(tmp_path)
    snapshots.create_checkpoint(disk)
    snapshots.grow(disk, 8 * MIB)
    assert snapshots.virtual_bytes(disk) == 8 * MIB
    snapshots.restore_checkpoint(disk)
    assert snapshots.virtual_bytes(disk) == 4 * MIB
    assert not snapshots.has_checkpoint(disk)
    snapshots.copy(disk, tmp_path / "copy")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "copy", tmp_path / "flat")
    assert (tmp_path / "flat").read_bytes()[:10] == b"guestguest"


@needs_qemu_img
def test_a_data_file_named_by_a_guest_is_refused(tmp_path: Path) -> None:
    secret, evil = tmp_path / "secret", tmp_path / "evil.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", evil, "1M")
    secret.write_bytes(b"secret" * 1000)
    disk = DiskFile("root", evil, "qcow2")
    for use in (
        snapshots.create_checkpoint,
        snapshots.virtual_bytes,
        lambda one: snapshots.copy(one, tmp_path / "copy"),
    ):
        with pytest.raises(ImageUnusable, match="data_file"):
            use(disk)
    assert not (tmp_path / "copy").exists() or b"secret" not in (tmp_path / "copy").read_bytes()


@needs_qemu_img
def test_a_backing_file_named_by_a_guest_is_not_read(tmp_path: Path) -> None:
    secret, evil = tmp_path / "secret", tmp_path / "evil.qcow2"
    secret.write_bytes(b"secret" * 200_000)
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", secret, "-F", "raw", evil, "1M")
    with pytest.raises(ImageUnusable, match="backing file"):
        snapshots.copy(DiskFile("root", evil, "qcow2"), tmp_path / "copy")
    base = tmp_path / "base"
    base.write_bytes(bytes(MIB))
    snapshots.copy(DiskFile("root", evil, "qcow2", base, "raw"), tmp_path / "copy")
    assert b"secret" not in (tmp_path / "copy").read_bytes()
