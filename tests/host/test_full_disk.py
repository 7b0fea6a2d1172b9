"""A host with a full disk: guests pause without data loss, new work is rejected, guests resume with free space."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationPlan
from hypervisor.api.spec import DiskSpec, KeySpec, MachineState
from tests.host.support import HostMaker, OneImage, image_ref, make_spec, ssh

MIB = 1 << 20
SIZE_MIB = 160
VIRTUAL_BYTES = 42 * MIB


@pytest.fixture
def small_disk(tmp_path: Path, namespace: None) -> Iterator[Path]:
    """A small file system for the host's state."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=755", "sixstack-test", str(place)]
    if subprocess.run(mounted, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave_mib: int) -> Path:
    """Create a file that uses all but `leave_mib` of the file system."""
    status = os.statvfs(place)
    filler = place / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave_mib * MIB)
    return filler


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_guests_pause_on_a_full_disk_without_data_loss(
    make_host: HostMaker, small_disk: Path, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    host = make_host(OneImage(tiny_image), state=small_disk / "state", min_free_disk_mib=64)
    image = image_ref(tiny_image, "qcow2", VIRTUAL_BYTES)
    writer, idle, new = (make_spec(number, image, key=public) for number in (1, 2, 3))
    writer = writer.model_copy(update={"disks": (*writer.disks, DiskSpec(name="extra", size_gib=1))})
    assert not host.describe().disk_is_low
    try:
        host.ensure_running(writer)
        host.ensure_running(idle)
        ssh(writer, private, "head -c 24000000 /dev/urandom >/tmp/wanted; sha256sum </tmp/wanted >/tmp/sum")
        filler = fill(small_disk, leave_mib=4)
        ssh(writer, private, "(dd if=/tmp/wanted of=/dev/vdb bs=64k conv=fsync && touch /tmp/done) >/dev/null 2>&1 &")
        wait_until(lambda: host.report(writer.id).state is MachineState.NO_SPACE)
        assert host.report(idle.id).state is MachineState.RUNNING
        assert "up" in ssh(idle, private, "uptime")

        # The guest stays paused while the disk is full.
        host.repair()
        assert host.report(writer.id).state is MachineState.NO_SPACE
        assert host.ensure_running(writer).state is MachineState.NO_SPACE
        assert host.describe().disk_is_low
        for work in (
            lambda: host.ensure_running(new),
            lambda: host.snapshot(idle, "one"),
            lambda: host.resize(idle.model_copy(update={"generation": 1}), start=True, grace_seconds=20),
        ):
            with pytest.raises(HypervisorError, match="almost full"):
                work()
        assert host.report(new.id).state is MachineState.ABSENT
        assert host.report(idle.id).state is MachineState.RUNNING

        filler.unlink()
        host.repair()
        wait_until(lambda: host.report(writer.id).state is MachineState.RUNNING)
        ssh(writer, private, "while [ ! -e /tmp/done ]; do sleep 0.1; done")
        ssh(writer, private, "echo 3 >/proc/sys/vm/drop_caches; head -c 24000000 /dev/vdb | sha256sum | cmp - /tmp/sum")
        assert not host.describe().disk_is_low
        assert host.ensure_running(new).state is MachineState.RUNNING
    finally:
        for spec in (writer, idle, new):
            host.remove(spec.id)


def test_a_host_with_a_full_disk_rejects_migrations(make_host: HostMaker, small_disk: Path, blank_image: Path) -> None:
    source = make_host(OneImage(blank_image))
    target = make_host(OneImage(blank_image), state=small_disk / "two", min_free_disk_mib=2 * SIZE_MIB)
    source_again = make_host(OneImage(blank_image))
    spec = make_spec(1, image_ref(blank_image, "raw", MIB), nics=(), memory_mib=32)
    source.ensure_running(spec)
    plan = MigrationPlan(id="plan", key="00" * 32, live=True)
    plan = plan.model_copy(update={"offer": source.begin_migration(spec, live=True)})
    with pytest.raises(HypervisorError, match="almost full"):
        target.prepare_migration(spec, plan)
    assert target.report(spec.id).state is MachineState.ABSENT
    assert source_again.report(spec.id).state is MachineState.RUNNING
    source_again.remove(spec.id)
