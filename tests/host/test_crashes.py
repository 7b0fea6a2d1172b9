"""kill -9 of an agent at each step of launch and removal: a retry or a repair recovers."""

import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor.api.spec import MachineState
from tests.host.support import HostMaker, OneImage, image_ref, make_spec

# Starts or removes a machine and kills itself just before or just after the n-th call of a function.
VICTIM = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
from hypervisor.base.config import HostConfig
from hypervisor.driver import QemuHypervisor
from hypervisor.api.spec import MachineSpec
from tests.host.support import OneImage

state, installation, image, document, deed, place, moment = sys.argv[1:]
module, _, name = place.rpartition(".")
owner = None
try:
    owner = import_module(module)
except ModuleNotFoundError:
    parent, _, kind = module.rpartition(".")
    owner = getattr(import_module(parent), kind)
original = getattr(owner, name)

def deadly(*arguments, **named):
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
    return result

config = HostConfig(state=Path(state), installation=installation, host_name="test", accelerator="tcg")
host = QemuHypervisor(config, OneImage(Path(image)))
spec = MachineSpec.model_validate_json(document)
if deed == "remove":
    host.ensure_running(spec)
setattr(owner, name, deadly)
host.ensure_running(spec) if deed == "start" else host.remove(spec.id)
"""

STARTING = [
    ("hypervisor.machines.machines.private_directory", "after"),
    ("hypervisor.network.segments.Segments.claim", "before"),
    ("hypervisor.network.segments.Segments.claim", "after"),
    ("hypervisor.storage.disks.create_overlay", "before"),
    ("hypervisor.storage.disks.create_overlay", "after"),
    ("hypervisor.storage.disks._verify", "before"),
    ("hypervisor.machines.machines.config_drive", "before"),
    ("hypervisor.network.links.Links.open_tap", "after"),
    ("hypervisor.base.process.start", "before"),
    ("hypervisor.base.process.start", "after"),
    ("hypervisor.qemu.qmp.query_state", "after"),
]
REMOVING = [
    ("hypervisor.machines.machines.Machines.stop", "after"),
    ("hypervisor.base.paths.shutil.rmtree", "before"),
    ("hypervisor.machines.machines.Machines.release", "before"),
    ("hypervisor.network.links.Links.remove_segment", "before"),
]


@pytest.mark.parametrize(
    ("deed", "place", "moment"), [("start", *each) for each in STARTING] + [("remove", *each) for each in REMOVING]
)
@pytest.mark.parametrize("wanted", ["running", "gone"])
def test_a_retry_or_repair_recovers_from_a_crash_at_any_step(
    make_host: HostMaker, blank_image: Path, deed: str, place: str, moment: str, wanted: str
) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    arguments = [str(host.paths.state), host.config.installation, str(blank_image), spec.model_dump_json()]
    died = subprocess.run([sys.executable, "-c", VICTIM, *arguments, deed, place, moment], timeout=60)
    assert died.returncode == -9

    later = make_host(OneImage(blank_image))
    later.repair()
    if wanted == "running":
        assert later.ensure_running(spec).state is MachineState.RUNNING
        assert later.ensure_running(spec) == later.report(spec.id)
    later.remove(spec.id)
    later.repair()
    assert later.reports() == []
