"""Live migration of disk and memory while the guest answers, and cold migration of disks."""

import secrets
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationPlan, MigrationTarget, TransferResult
from hypervisor.api.spec import DiskSpec, KeySpec, MachineReport, MachineSpec, MachineState
from tests.host.support import inside, make_spec, ssh
from tests.host.test_hosts import VNI, Host, MakeHosts, make_hosts
from tests.host.test_life import next_generation, tiny_ref

__all__ = ["make_hosts"]
ECHO_REQUEST, ECHO_REPLY = 128, 129
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
WRITING = "while :; do dd if=/dev/urandom of=/root/churn bs=64k count=16 conv=fsync 2>/dev/null; done"


def new_plan(**changes: object) -> MigrationPlan:
    return MigrationPlan(id=str(uuid.uuid4()), key=secrets.token_hex(32), live=True).model_copy(update=changes)


def holder(host: Host, tmp_path: Path) -> MachineSpec:
    """Start a machine without a bootable disk to keep the segment on a host."""
    spec = make_spec(100 + host.number, None, vni=VNI, disks=(DiskSpec(size_mib=1),), memory_mib=32)
    host.run(spec)
    return spec


def begin(source: Host, spec: MachineSpec, plan: MigrationPlan) -> MigrationPlan:
    with inside(source.namespace):
        return plan.model_copy(update={"offer": source.hypervisor.begin_migration(spec, live=plan.live)})


def prepare(destination: Host, spec: MachineSpec, plan: MigrationPlan) -> MigrationTarget:
    with inside(destination.namespace):
        landing = destination.hypervisor.prepare_migration(spec, plan)
        assert destination.hypervisor.prepare_migration(spec, plan) == landing, "it may be asked again"
        return landing


def perform(source: Host, spec: MachineSpec, plan: MigrationPlan, landing: MigrationTarget) -> TransferResult:
    with inside(source.namespace):
        return source.hypervisor.perform_migration(spec, plan, landing, grace_seconds=20)


def finish(destination: Host, spec: MachineSpec, plan: MigrationPlan, sent: TransferResult | None) -> bool:
    with inside(destination.namespace):
        taken = destination.hypervisor.finish_migration(spec, plan, sent)
        assert destination.hypervisor.finish_migration(spec, plan, sent) == taken, "it may be asked again"
        return taken


def cancel(source: Host, spec: MachineSpec, plan: MigrationPlan) -> MachineReport:
    with inside(source.namespace):
        return source.hypervisor.cancel_migration(spec, plan)


def remove(host: Host, spec: MachineSpec) -> None:
    with inside(host.namespace):
        host.hypervisor.remove(spec.id)


def move(source: Host, destination: Host, spec: MachineSpec, **changes: object) -> MachineSpec:
    """Run all phases of a migration like the control plane; return the updated spec."""
    wanted = next_generation(spec)
    plan = begin(source, wanted, new_plan(**changes))
    landing = prepare(destination, wanted, plan)
    sent = perform(source, wanted, plan, landing)
    assert finish(destination, wanted, plan, sent)
    remove(source, spec)
    return wanted


@contextmanager
def pinging(spec: MachineSpec) -> Iterator[list[int]]:
    """Ping the guest five times a second; count requests and replies."""
    counted: list[int] = []
    answered: set[bytes] = set()
    stopping = threading.Event()
    guest = str(spec.nics[0].addresses[0].ip)

    def listen() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                message, sender = asker.recvfrom(100)
                if message[0] == ECHO_REPLY and sender[0] == guest:
                    answered.add(message[6:8])

    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as asker:
        asker.settimeout(0.2)
        listener = threading.Thread(target=listen)
        listener.start()
        asked = 0

        def ask() -> None:
            nonlocal asked
            while not stopping.wait(0.2):
                asked += 1
                asker.sendto(struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 1, asked), (guest, 0))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield counted
        finally:
            stopping.set()
            asking.join()
            listener.join()
    counted += [asked, len(answered)]


def test_a_live_migration_of_a_guest_that_writes_and_answers(
    make_hosts: MakeHosts, tiny_image: Path, ssh_key: tuple[Path, KeySpec], tmp_path: Path
) -> None:
    key, public = ssh_key
    one, two = make_hosts(2)
    holder(one, tmp_path)
    image = tiny_ref(tiny_image)
    spec = make_spec(1, image, key=public, vni=VNI)
    one.run(spec)
    booted = ssh(spec, key, f"echo before > /root/mark; sync; {BOOT_ID}")
    ssh(spec, key, f"({WRITING}) </dev/null >/dev/null 2>&1 &")

    with pinging(spec) as answers:
        moved = move(one, two, spec)
        now = ssh(spec, key, f"{BOOT_ID}; cat /root/mark; echo after >> /root/mark; sync; ping6 -c 1 fd00:aaaa::ff")
    assert now.startswith(f"{booted}before\n")
    assert "0% packet loss" in now
    asked, answered = answers
    assert asked - answered <= 20, f"{asked - answered} of {asked} were not answered"

    with inside(two.namespace):
        assert two.hypervisor.report(spec.id).state is MachineState.RUNNING
        assert two.hypervisor.spec(spec.id) == moved
        assert b"TINY: " in two.hypervisor.console_log(spec.id)
        names = {path.name for path in two.hypervisor.paths.machine(spec.id).directory.iterdir()}
        assert not names & {"incoming.json", "outgoing", "key"}
        assert not [name for name in names if name.startswith(".")]
    with inside(one.namespace):
        assert one.hypervisor.report(spec.id).state is MachineState.ABSENT

    # Migrate back without the image, which has been deleted.
    one.image.path = tmp_path / "gone"
    for base in one.hypervisor.paths.bases.iterdir():
        base.unlink()
    back = move(two, one, moved)
    assert ssh(spec, key, f"{BOOT_ID}; cat /root/mark") == f"{booted}before\nafter\n"
    with inside(one.namespace):
        one.hypervisor.ensure_stopped(spec.id, grace_seconds=20)
        one.hypervisor.ensure_running(back)
    assert ssh(spec, key, f"cat /root/mark; {BOOT_ID}").startswith("before\nafter\n")


def test_a_cold_migration_moves_the_disk_and_can_be_reverted(
    make_hosts: MakeHosts, tiny_image: Path, ssh_key: tuple[Path, KeySpec], tmp_path: Path
) -> None:
    key, public = ssh_key
    one, two = make_hosts(2)
    holder(one, tmp_path)
    spec = make_spec(1, tiny_ref(tiny_image), key=public, vni=VNI)
    one.run(spec)
    ssh(spec, key, "echo before > /root/mark; sync")

    larger = (spec.disks[0].model_copy(update={"size_gib": 2}), DiskSpec(name="swap", size_mib=16))
    wanted = next_generation(spec, memory_mib=192, disks=larger)
    plan = begin(one, wanted, new_plan(live=False))
    landing = prepare(two, wanted, plan)
    sent = perform(one, wanted, plan, landing)
    assert perform(one, wanted, plan, landing) == sent, "it may be asked again"
    assert finish(two, wanted, plan, sent)
    assert ssh(wanted, key, "cat /root/mark; echo after >> /root/mark; sync; cat /sys/block/vda/size") == (
        f"before\n{2 << 21}\n"
    )
    with inside(one.namespace):
        assert one.hypervisor.report(spec.id).state is MachineState.SHUTOFF, "it is kept until that is confirmed"

    remove(two, wanted)
    back = next_generation(wanted, memory_mib=spec.memory_mib, disks=spec.disks)
    with inside(one.namespace):
        one.hypervisor.revert_resize(back, start=True)
    assert ssh(back, key, "cat /root/mark") == "before\n"


def test_a_failed_migration_leaves_the_guest_on_the_source(
    make_hosts: MakeHosts, tiny_image: Path, ssh_key: tuple[Path, KeySpec], tmp_path: Path
) -> None:
    key, public = ssh_key
    one, two = make_hosts(2)
    holder(one, tmp_path)
    spec = make_spec(1, tiny_ref(tiny_image), key=public, vni=VNI)
    one.run(spec)
    booted = ssh(spec, key, BOOT_ID)
    wanted = next_generation(spec)

    # A peer without the key is rejected.
    plan = begin(one, wanted, new_plan())
    landing = prepare(two, wanted, plan)
    with pytest.raises(HypervisorError):
        perform(one, wanted, plan.model_copy(update={"key": secrets.token_hex(32)}), landing)
    assert cancel(one, wanted, plan).state is MachineState.RUNNING
    assert not finish(two, wanted, plan, None)
    assert_absent(two, spec)
    assert ssh(spec, key, BOOT_ID) == booted

    # The destination dies before the guest is sent.
    plan = begin(one, wanted, new_plan())
    landing = prepare(two, wanted, plan)
    kill(two, spec)
    with pytest.raises(HypervisorError):
        perform(one, wanted, plan, landing)
    assert not finish(two, wanted, plan, None)
    assert cancel(one, wanted, plan).state is MachineState.RUNNING

    # The user cancels while the disk is sent and the guest writes to it.
    ssh(spec, key, f"({WRITING}) </dev/null >/dev/null 2>&1 &")
    plan = begin(one, wanted, new_plan())
    landing = prepare(two, wanted, plan)
    hurrying = threading.Thread(target=hurry, args=(one, spec))
    hurrying.start()
    with pytest.raises(HypervisorError, match="cancelled"):
        perform(one, wanted, plan, landing)
    hurrying.join()
    assert not finish(two, wanted, plan, None)
    assert cancel(one, wanted, plan).state is MachineState.RUNNING
    assert ssh(spec, key, BOOT_ID) == booted

    # Memory was sent, but the target failed: the guest resumes on the source.
    plan = begin(one, wanted, new_plan())
    landing = prepare(two, wanted, plan)
    sent = perform(one, wanted, plan, landing)
    kill(two, spec)
    assert not finish(two, wanted, plan, sent)
    assert cancel(one, wanted, plan).state is MachineState.RUNNING
    assert ssh(spec, key, BOOT_ID) == booted
    assert_absent(two, spec)
    assert move(one, two, spec) == wanted
    assert ssh(spec, key, BOOT_ID) == booted


def test_a_target_rejects_machines_that_it_cannot_run(make_hosts: MakeHosts, tmp_path: Path) -> None:
    one, two = make_hosts(2)
    spec = holder(one, tmp_path)
    plan = begin(one, spec, new_plan())
    assert plan.offer is not None
    for change, why in (
        ({"accelerator": "kvm"}, "this host has none"),
        ({"disks": (plan.offer.disks[0].model_copy(update={"size_bytes": 1 << 40}),)}, "larger than its spec allows"),
        ({"config_drive": "????"}, "not arrived as it was sent"),
    ):
        false = plan.model_copy(update={"offer": plan.offer.model_copy(update=change)})
        with inside(two.namespace), pytest.raises(HypervisorError, match=why):
            two.hypervisor.prepare_migration(spec, false)
        assert_absent(two, spec)


def test_a_machine_on_shared_storage_is_evacuated(
    make_hosts: MakeHosts, tiny_image: Path, ssh_key: tuple[Path, KeySpec], tmp_path: Path
) -> None:
    key, public = ssh_key
    one, two = make_hosts(2)
    for host in (one, two):
        host.change(shared_machines=tmp_path / "shared")
    holder(one, tmp_path)
    spec = make_spec(1, tiny_ref(tiny_image), key=public, vni=VNI)
    one.run(spec)
    ssh(spec, key, "echo kept > /root/mark; sync")
    assert spec.id not in two.hypervisor.paths.machine_ids()
    with inside(two.namespace):
        two.hypervisor.remove(spec.id)
    assert ssh(spec, key, "cat /root/mark") == "kept\n", "it is not two's to remove"

    # A live host keeps its lock on the disk, so the other host cannot start the machine.
    wanted = next_generation(spec)
    paths = one.hypervisor.paths.machine(spec.id)
    pid = paths.pid.read_text()
    paths.pid.write_text(f"elsewhere {pid.partition(' ')[2]}")
    paths.qmp.rename(paths.qmp.with_name("elsewhere.sock"))
    with inside(two.namespace), pytest.raises(HypervisorError):
        two.hypervisor.rebuild(wanted, start=True, keep=frozenset({"root"}))
    assert one.hypervisor.paths.is_owned(spec.id)
    paths.pid.write_text(pid)

    kill(one, spec)
    with inside(two.namespace):
        two.hypervisor.rebuild(wanted, start=True, keep=frozenset({"root"}))
    assert ssh(spec, key, "cat /root/mark") == "kept\n"
    with inside(one.namespace):
        assert spec.id not in {report.id for report in one.hypervisor.reports()}
        assert one.hypervisor.report(spec.id).state is MachineState.ABSENT
        one.hypervisor.remove(spec.id)
        with pytest.raises(HypervisorError, match="do not send them"):
            one.hypervisor.begin_migration(spec, live=True)
    assert ssh(spec, key, "cat /root/mark") == "kept\n"


def hurry(host: Host, spec: MachineSpec) -> None:
    """Force completion as soon as the migration runs."""
    deadline = time.monotonic() + 60
    while host.hypervisor.migration_progress(spec.id) is None:
        assert time.monotonic() < deadline
    host.hypervisor.interrupt(spec.id)


def kill(host: Host, spec: MachineSpec) -> None:
    running = host.hypervisor.machines.process_of(host.hypervisor.paths.machine(spec.id))
    assert running is not None
    running.send(9)  # type: ignore[arg-type]
    assert running.wait(10)


def assert_absent(host: Host, spec: MachineSpec) -> None:
    with inside(host.namespace):
        assert host.hypervisor.report(spec.id).state is MachineState.ABSENT
        assert not host.hypervisor.links.list_segments()
