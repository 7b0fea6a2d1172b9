"""kill -9 of an agent during an action on a running machine: a retry completes the action."""

import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor.api.spec import MachineState
from hypervisor.storage import snapshots
from tests.host.support import HostMaker, OneImage, image_ref, make_spec

# Executes an action and kills itself just before or just after a function call.
VICTIM = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
from hypervisor.base.config import HostConfig
from hypervisor.driver import QemuHypervisor
from hypervisor.api.spec import MachineSpec
from tests.host.support import OneImage
from tests.host.test_life_crashes import DEEDS

state, installation, image, document, deed, place, moment = sys.argv[1:]
module, _, name = place.rpartition(".")
owner = import_module(module)
original = getattr(owner, name)

def deadly(*arguments, **named):
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
    return result

config = HostConfig(state=Path(state), installation=installation, host_name="test", accelerator="tcg")
host = QemuHypervisor(config, OneImage(Path(image)))
setattr(owner, name, deadly)
DEEDS[deed](host, MachineSpec.model_validate_json(document))
"""


def changed(spec, generation, **changes):  # type: ignore[no-untyped-def]
    return spec.model_copy(update={"generation": generation, **changes})


def larger(spec):  # type: ignore[no-untyped-def]
    return (spec.disks[0].model_copy(update={"size_gib": 2}),)


def two(spec):  # type: ignore[no-untyped-def]
    other = spec.nics[0].model_copy(update={"port_id": "1" * 36, "mac": "02:00:f0:00:01:01", "addresses": ()})
    return changed(spec, spec.generation, nics=(*spec.nics, other))


DEEDS = {
    "suspend": lambda host, spec: host.suspend(spec.id),
    "snapshot": lambda host, spec: host.snapshot(spec, "one"),
    "rebuild": lambda host, spec: host.rebuild(changed(spec, 1), start=True),
    "resize": lambda host, spec: host.resize(changed(spec, 1, disks=larger(spec)), start=True, grace_seconds=0),
    "revert": lambda host, spec: host.revert_resize(changed(spec, 2), start=True),
    "plug": lambda host, spec: host.ensure_nics(two(spec)),
    "unplug": lambda host, spec: host.ensure_nics(spec),
}
DEATHS = [
    ("suspend", "hypervisor.machines.suspend._query_status", "before"),
    ("suspend", "hypervisor.machines.suspend.publish_memory", "before"),
    ("suspend", "hypervisor.machines.suspend.save", "after"),
    ("snapshot", "hypervisor.storage.snapshots._wait_for_backup", "before"),
    ("snapshot", "hypervisor.storage.snapshots.copy_running", "after"),
    ("rebuild", "hypervisor.machines.machines.start_qemu", "before"),
    ("rebuild", "hypervisor.machines.machines.start_qemu", "after"),
    ("resize", "hypervisor.storage.snapshots.create_checkpoint", "after"),
    ("resize", "hypervisor.storage.snapshots.grow", "after"),
    ("resize", "hypervisor.machines.machines.start_qemu", "after"),
    ("revert", "hypervisor.storage.snapshots.delete_checkpoint", "before"),
    ("revert", "hypervisor.machines.machines.start_qemu", "before"),
    ("plug", "hypervisor.machines.hotplug._plug", "before"),
    ("plug", "hypervisor.machines.hotplug.plug", "after"),
    ("unplug", "hypervisor.machines.hotplug.unplug", "after"),
]


@pytest.mark.parametrize(("deed", "place", "moment"), DEATHS)
def test_a_retry_completes_an_interrupted_action(
    make_host: HostMaker, blank_image: Path, deed: str, place: str, moment: str
) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    before = {"revert": "resize", "unplug": "plug"}.get(deed)
    if before is not None:
        DEEDS[before](host, spec)
    arguments = [str(host.paths.state), host.config.installation, str(blank_image), spec.model_dump_json()]
    died = subprocess.run([sys.executable, "-c", VICTIM, *arguments, deed, place, moment], timeout=60)
    assert died.returncode == -9

    later = make_host(OneImage(blank_image))
    later.repair()
    DEEDS[deed](later, spec)
    if deed == "suspend":
        assert later.report(spec.id).state is MachineState.SHUTOFF
        later.ensure_running(spec)
    assert later.report(spec.id).state is MachineState.RUNNING
    assert len(later.diagnostics(spec.id).nics) == (2 if deed == "plug" else 1)
    later.discard_snapshot(spec.id, "one")
    later.ensure_stopped(spec.id, grace_seconds=0)
    (root,) = later.machines.writable_disks(spec, later.paths.machine(spec.id))
    assert snapshots.virtual_bytes(root) == (2 if deed == "resize" else 1) << 30
    assert snapshots.has_checkpoint(root) == (deed == "resize")
    later.remove(spec.id)
