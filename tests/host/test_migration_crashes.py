"""kill -9 of an agent during a migration: a retry completes or cancels it, and exactly one guest runs."""

import secrets
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationPlan, MigrationTarget, TransferResult
from hypervisor.api.spec import MachineSpec, MachineState
from hypervisor.driver import QemuHypervisor
from hypervisor.storage.qemu_img import run
from tests.host.support import HostMaker, OneImage, image_ref, make_spec

# Executes one phase and kills itself just before or just after a function call.
VICTIM = """
import inspect, os, pkgutil, signal, sys
from pathlib import Path
from hypervisor.base.config import HostConfig
from hypervisor.driver import QemuHypervisor
from hypervisor.api.spec import MachineSpec
from hypervisor.api.migration import MigrationPlan, MigrationTarget
from tests.host.support import OneImage
from tests.host.test_migration_crashes import STEPS

state, installation, image, spec, plan, landing, step, place, moment = sys.argv[1:]
owner, _, name = place.rpartition(".")
owner = pkgutil.resolve_name(owner)
original = getattr(owner, name)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(*arguments, **named):
    if moment == "before":
        die()
    result = original(*arguments, **named)
    if not inspect.iscoroutine(result):
        die()
    async def finish():
        await result
        die()
    return finish()

config = HostConfig(state=Path(state), installation=installation, host_name="test", accelerator="tcg")
host = QemuHypervisor(config, OneImage(Path(image)))
setattr(owner, name, deadly)
document = MigrationTarget.model_validate_json(landing) if landing else None
STEPS[step](host, MachineSpec.model_validate_json(spec), MigrationPlan.model_validate_json(plan), document)
"""
STEPS = {
    "prepare": lambda host, spec, plan, _: host.prepare_migration(spec, plan),
    "send": lambda host, spec, plan, landing: host.perform_migration(spec, plan, landing, grace_seconds=0),
    "take": lambda host, spec, plan, _: host.finish_migration(spec, plan, TransferResult()),
}
LIVE = [
    ("prepare", "hypervisor.migration.target.listen", "after"),
    ("send", "hypervisor.migration.source.MigrationSource._are_mirrors_ready", "before"),
    ("send", "hypervisor.migration.source.MigrationSource._begin_memory", "after"),
    ("send", "hypervisor.migration.source.MigrationSource._end_mirrors", "before"),
    ("send", "hypervisor.migration.source.MigrationSource._end_mirrors", "after"),
    ("send", "hypervisor.migration.source.MigrationSource.send_memory", "after"),
    ("take", "hypervisor.migration.target.close_listeners", "after"),
]
COLD = [
    ("send", "hypervisor.migration.driver.start_qemu", "after"),
    ("send", "hypervisor.migration.source.MigrationSource.end_mirrors", "after"),
    ("take", "hypervisor.storage.snapshots.grow", "before"),
    ("take", "hypervisor.machines.machines.start_qemu", "after"),
]
GIVEN_UP = "hypervisor.migration.source.MigrationSource._end_mirrors"


@pytest.mark.parametrize(
    ("live", "step", "place", "moment"), [(True, *one) for one in LIVE] + [(False, *one) for one in COLD]
)
def test_an_interrupted_migration_ends_with_one_guest(
    make_host: HostMaker, blank_image: Path, tmp_path: Path, live: bool, step: str, place: str, moment: str
) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20), nics=(), memory_mib=32)
    two = make_host(OneImage(blank_image), state=tmp_path / "two")
    one = make_host(OneImage(blank_image))
    one.machines.provision(spec, one.paths.machine(spec.id), start=False)
    mark(one, spec)
    one.ensure_running(spec)
    wanted = spec.model_copy(update={"generation": 1})
    plan = MigrationPlan(id=str(uuid.uuid4()), key=secrets.token_hex(32), live=live)
    plan = plan.model_copy(update={"offer": one.begin_migration(wanted, live=live)})
    landing: MigrationTarget | None = None
    try:
        for name, host in (("prepare", two), ("send", one), ("take", two)):
            if name == step:
                die(host, blank_image, wanted, plan, landing, step, place, moment)
                host.repair()
            try:
                done = STEPS[name](host, wanted, plan, landing)
            except HypervisorError:
                # A phase interrupted at this place cannot be retried; the migration is cancelled.
                assert place == GIVEN_UP
                assert not two.finish_migration(wanted, plan, None)
                assert one.cancel_migration(wanted, plan).state is MachineState.RUNNING
                assert two.report(spec.id).state is MachineState.ABSENT
                return
            landing = done if name == "prepare" else landing
        assert two.finish_migration(wanted, plan, TransferResult())
        assert two.report(spec.id).state is MachineState.RUNNING
        assert one.report(spec.id).state is not MachineState.RUNNING
        two.ensure_stopped(spec.id, grace_seconds=0)
        assert has_mark(two, spec)
    finally:
        two.remove(spec.id)
        one.remove(spec.id)


def die(
    host: QemuHypervisor,
    image: Path,
    spec: MachineSpec,
    plan: MigrationPlan,
    landing: MigrationTarget | None,
    *deed: str,
) -> None:
    documents = [spec.model_dump_json(), plan.model_dump_json(), landing.model_dump_json() if landing else ""]
    arguments = [str(host.paths.state), host.config.installation, str(image), *documents, *deed]
    assert subprocess.run([sys.executable, "-c", VICTIM, *arguments], timeout=120).returncode == -9


def mark(host: QemuHypervisor, spec: MachineSpec) -> None:
    """Write content to the disk that is not in its image."""
    run(["qemu-io", "-c", "write -P 0x5a 512k 64k", str(host.paths.machine(spec.id).disk("root"))], timeout_seconds=60)


def has_mark(host: QemuHypervisor, spec: MachineSpec) -> bool:
    disk = str(host.paths.machine(spec.id).disk("root"))
    return "Pattern" not in run(["qemu-io", "-c", "read -P 0x5a 512k 64k", disk], timeout_seconds=60)
