"""Contract of `Hypervisor`, checked on FakeHypervisor and QemuHypervisor. Disks are blank: no guest boots."""

import secrets
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError, ImageUnusable
from hypervisor.api.migration import MigrationPlan
from hypervisor.api.protocol import Hypervisor
from hypervisor.api.spec import ImageRef, MachineSpec, MachineState
from hypervisor.fake import FakeHypervisor
from hypervisor.fake_host import FakeMachine
from tests.host.support import HostMaker, OneImage, blank_image, image_ref, make_host, make_spec, namespace

__all__ = ["blank_image", "make_host", "namespace"]

Restart = Callable[[], Hypervisor]


@pytest.fixture
def images(blank_image: Path) -> OneImage:
    return OneImage(blank_image)


@pytest.fixture
def image(blank_image: Path) -> ImageRef:
    return image_ref(blank_image, "raw", 1 << 20)


@pytest.fixture(params=["fake", "real"])
def restart(request: pytest.FixtureRequest, images: OneImage) -> Iterator[Restart]:
    """Return a new hypervisor without any state in memory."""
    if request.param == "fake":
        machines: dict[str, FakeMachine] = {}
        yield lambda: FakeHypervisor(machines=machines, images=images)
        return
    make: HostMaker = request.getfixturevalue("make_host")
    yield lambda: make(images)


@pytest.fixture
def hypervisor(restart: Restart) -> Hypervisor:
    return restart()


@pytest.fixture
def spec(image: ImageRef) -> MachineSpec:
    return make_spec(1, image)


def test_host_describes_itself(hypervisor: Hypervisor) -> None:
    report = hypervisor.describe()
    assert report.vcpus > 0
    assert report.memory_mib > 0
    assert report.disk_gib > 0
    assert report.accelerator == "tcg"
    assert report.hypervisor_version > 5_000_000


def test_unknown_machine_is_absent(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    assert hypervisor.report(spec.id).state is MachineState.ABSENT
    assert hypervisor.reports() == []
    assert hypervisor.spec(spec.id) is None
    assert hypervisor.console_log(spec.id) == b""
    assert hypervisor.ensure_stopped(spec.id, grace_seconds=0).state is MachineState.ABSENT
    hypervisor.remove(spec.id)


def test_a_machine_runs_until_it_is_removed(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    started = hypervisor.ensure_running(spec)
    assert started.state is MachineState.RUNNING
    assert started.accelerator == "tcg"
    assert started.started_at is not None
    assert hypervisor.report(spec.id) == started
    assert list(hypervisor.reports()) == [started]
    assert hypervisor.spec(spec.id) == spec

    hypervisor.remove(spec.id)
    assert hypervisor.report(spec.id).state is MachineState.ABSENT
    assert hypervisor.reports() == []
    hypervisor.remove(spec.id)
    hypervisor.close_down()


def test_a_running_machine_is_left_alone(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    started = hypervisor.ensure_running(spec)
    assert hypervisor.ensure_running(spec) == started
    hypervisor.remove(spec.id)


def test_a_stopped_machine_starts_again(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    first = hypervisor.ensure_running(spec)
    stopped = hypervisor.ensure_stopped(spec.id, grace_seconds=0.1)
    assert stopped.state is MachineState.SHUTOFF
    assert stopped.started_at is None
    assert hypervisor.ensure_stopped(spec.id, grace_seconds=0.1) == stopped
    again = hypervisor.ensure_running(spec)
    assert again.state is MachineState.RUNNING
    assert again.started_at is not None
    assert first.started_at is not None
    assert again.started_at > first.started_at
    hypervisor.remove(spec.id)


@pytest.mark.parametrize("hard", [True, False])
def test_a_reboot_ends_in_a_running_machine(hypervisor: Hypervisor, spec: MachineSpec, hard: bool) -> None:
    first = hypervisor.ensure_running(spec)
    grown = spec.model_copy(update={"memory_mib": 192})
    again = hypervisor.reboot(grown, hard=hard, grace_seconds=0.1)
    assert again.state is MachineState.RUNNING
    assert again != first
    assert hypervisor.spec(spec.id) == grown
    hypervisor.remove(spec.id)


def test_machine_is_paused_and_resumed(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    with pytest.raises(HypervisorError):
        hypervisor.pause(spec.id)
    hypervisor.ensure_running(spec)
    assert hypervisor.pause(spec.id).state is MachineState.PAUSED
    assert hypervisor.pause(spec.id).state is MachineState.PAUSED
    assert hypervisor.report(spec.id).state is MachineState.PAUSED
    assert hypervisor.ensure_running(spec).state is MachineState.PAUSED
    assert hypervisor.unpause(spec.id).state is MachineState.RUNNING
    assert hypervisor.unpause(spec.id).state is MachineState.RUNNING
    hypervisor.ensure_stopped(spec.id, grace_seconds=0)
    with pytest.raises(HypervisorError):
        hypervisor.unpause(spec.id)
    hypervisor.remove(spec.id)


def test_a_machine_that_runs_can_be_interrupted(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    with pytest.raises(HypervisorError):
        hypervisor.inject_nmi(spec.id)
    hypervisor.ensure_running(spec)
    hypervisor.inject_nmi(spec.id)
    hypervisor.pause(spec.id)
    hypervisor.inject_nmi(spec.id)
    assert hypervisor.report(spec.id).state is MachineState.PAUSED
    hypervisor.ensure_stopped(spec.id, grace_seconds=0)
    with pytest.raises(HypervisorError):
        hypervisor.inject_nmi(spec.id)
    hypervisor.remove(spec.id)


def test_machines_survive_a_restart_of_the_agent(restart: Restart, spec: MachineSpec) -> None:
    started = restart().ensure_running(spec)
    later = restart()
    later.repair()
    assert later.report(spec.id) == started
    assert later.spec(spec.id) == spec
    assert later.ensure_running(spec) == started
    later.remove(spec.id)
    assert restart().reports() == []


def test_an_image_that_is_gone_leaves_nothing(hypervisor: Hypervisor, images: OneImage, spec: MachineSpec) -> None:
    images.path.unlink()
    with pytest.raises(ImageUnusable):
        hypervisor.ensure_running(spec)
    assert hypervisor.reports() == []
    assert hypervisor.report(spec.id).state is MachineState.ABSENT


def test_machines_are_made_and_removed_side_by_side(hypervisor: Hypervisor, image: ImageRef) -> None:
    specs = [make_spec(number, image, vni=0x700 + number % 2) for number in range(6)]
    with ThreadPoolExecutor(max_workers=6) as pool:
        started = list(pool.map(hypervisor.ensure_running, specs))
        assert {report.state for report in started} == {MachineState.RUNNING}
        assert {report.id for report in hypervisor.reports()} == {spec.id for spec in specs}
        list(pool.map(hypervisor.remove, [spec.id for spec in specs]))
    assert hypervisor.reports() == []


def test_images_may_be_evicted_while_machines_run(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    hypervisor.ensure_running(spec)
    hypervisor.evict_images(frozenset())
    assert hypervisor.reboot(spec, hard=True, grace_seconds=0).state is MachineState.RUNNING
    hypervisor.remove(spec.id)
    hypervisor.evict_images(frozenset())


def later(spec: MachineSpec, **changes: object) -> MachineSpec:
    return spec.model_copy(update={"generation": spec.generation + 1, **changes})


def test_suspended_machine_resumes_and_stop_discards_its_memory(
    hypervisor: Hypervisor, restart: Restart, spec: MachineSpec
) -> None:
    with pytest.raises(HypervisorError):
        hypervisor.suspend(spec.id)
    hypervisor.ensure_running(spec)
    assert hypervisor.suspend(spec.id).state is MachineState.SHUTOFF
    assert hypervisor.suspend(spec.id).state is MachineState.SHUTOFF
    assert restart().ensure_running(spec).state is MachineState.RUNNING
    hypervisor.suspend(spec.id)
    hypervisor.ensure_stopped(spec.id, grace_seconds=0)
    with pytest.raises(HypervisorError):
        hypervisor.suspend(spec.id)
    hypervisor.remove(spec.id)


@pytest.mark.parametrize("start", [True, False])
def test_a_machine_is_rebuilt_resized_and_brought_back(hypervisor: Hypervisor, spec: MachineSpec, start: bool) -> None:
    hypervisor.ensure_running(spec)
    state = MachineState.RUNNING if start else MachineState.SHUTOFF
    rebuilt = later(spec)
    assert hypervisor.rebuild(rebuilt, start=start).state is state
    assert hypervisor.rebuild(rebuilt, start=start).state is state
    disk = spec.disks[0].model_copy(update={"size_gib": 2})
    resized = later(rebuilt, memory_mib=192, disks=(disk,))
    assert hypervisor.resize(resized, start=start, grace_seconds=0).state is state
    assert hypervisor.resize(resized, start=start, grace_seconds=0).state is state
    assert hypervisor.spec(spec.id) == resized
    reverted = later(resized, memory_mib=128, disks=spec.disks)
    assert hypervisor.revert_resize(reverted, start=start).state is state
    assert hypervisor.revert_resize(reverted, start=start).state is state
    assert hypervisor.spec(spec.id) == reverted
    again = later(reverted, disks=(disk,))
    hypervisor.resize(again, start=start, grace_seconds=0)
    hypervisor.confirm_resize(spec.id)
    hypervisor.confirm_resize(spec.id)
    hypervisor.remove(spec.id)


def test_operations_on_a_missing_machine_fail(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    for attempt in (
        lambda: hypervisor.resize(spec, start=True, grace_seconds=0),
        lambda: hypervisor.confirm_resize(spec.id),
        lambda: hypervisor.snapshot(spec, "one"),
        lambda: hypervisor.ensure_nics(spec),
        lambda: hypervisor.diagnostics(spec.id),
    ):
        with pytest.raises(HypervisorError):
            attempt()
    hypervisor.discard_snapshot(spec.id, "one")
    hypervisor.interrupt(spec.id)
    assert hypervisor.reports() == []


def test_snapshot_file_is_removed_by_discard(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    hypervisor.ensure_running(spec)
    taken = hypervisor.snapshot(spec, "one")
    assert taken.path.stat().st_size > 0
    assert hypervisor.snapshot(spec, "one") == taken
    assert hypervisor.report(spec.id).state is MachineState.RUNNING
    hypervisor.discard_snapshot(spec.id, "one")
    assert not taken.path.exists()
    hypervisor.ensure_stopped(spec.id, grace_seconds=0)
    hypervisor.snapshot(spec, "two")
    hypervisor.discard_snapshot(spec.id, "two")
    hypervisor.remove(spec.id)


def test_interfaces_are_attached_and_detached(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    hypervisor.ensure_running(spec)
    second = spec.nics[0].model_copy(update={"port_id": "1" * 36, "mac": "02:00:f0:00:01:01", "addresses": ()})
    hypervisor.ensure_nics(spec.model_copy(update={"nics": (*spec.nics, second)}))
    assert [nic.mac for nic in hypervisor.diagnostics(spec.id).nics] == [spec.nics[0].mac, second.mac]
    hypervisor.ensure_nics(spec)
    assert len(hypervisor.diagnostics(spec.id).nics) == 1
    hypervisor.remove(spec.id)


# --- two hosts ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fake", "real"])
def pair(request: pytest.FixtureRequest, images: OneImage, tmp_path: Path) -> tuple[Hypervisor, Hypervisor]:
    """Two hosts of one cloud."""
    if request.param == "fake":
        return FakeHypervisor(name="one", images=images), FakeHypervisor(name="two", images=images)
    make: HostMaker = request.getfixturevalue("make_host")
    two = make(images, state=tmp_path / "two", host_name="two")
    return make(images), two


@pytest.fixture
def moving(spec: MachineSpec) -> MachineSpec:
    """A spec without interfaces, because both hosts share one network namespace."""
    return spec.model_copy(update={"nics": (), "memory_mib": 32})


def plan(host: Hypervisor, spec: MachineSpec, **how: bool) -> MigrationPlan:
    made = MigrationPlan(id=str(uuid.uuid4()), key=secrets.token_hex(32), **how)
    return made.model_copy(update={"offer": host.begin_migration(spec, live=made.live)})


@pytest.mark.parametrize("how", [{"live": True}, {"live": True, "paused": True}, {"live": False}])
def test_a_machine_moves_to_another_host(
    pair: tuple[Hypervisor, Hypervisor], moving: MachineSpec, how: dict[str, bool]
) -> None:
    one, two = pair
    one.ensure_running(moving)
    if how.get("paused"):
        one.pause(moving.id)
    wanted = moving.model_copy(update={"generation": 1})
    made = plan(one, wanted, **how)
    landing = two.prepare_migration(wanted, made)
    assert two.prepare_migration(wanted, made) == landing
    assert two.report(moving.id).state is not MachineState.RUNNING
    assert one.migration_progress(moving.id) is None
    sent = one.perform_migration(wanted, made, landing, grace_seconds=0)
    one.perform_migration(wanted, made, landing, grace_seconds=0)
    assert two.finish_migration(wanted, made, sent)
    assert two.finish_migration(wanted, made, sent)
    arrived = MachineState.PAUSED if how.get("paused") else MachineState.RUNNING
    assert two.report(moving.id).state is arrived
    assert one.report(moving.id).state is not MachineState.RUNNING
    assert two.spec(moving.id) == wanted
    for host in pair:
        host.remove(moving.id)


@pytest.mark.parametrize("live", [True, False])
def test_unsent_migration_is_cancelled(pair: tuple[Hypervisor, Hypervisor], moving: MachineSpec, live: bool) -> None:
    one, two = pair
    one.ensure_running(moving)
    wanted = moving.model_copy(update={"generation": 1})
    made = plan(one, wanted, live=live)
    two.prepare_migration(wanted, made)
    assert not two.finish_migration(wanted, made, None)
    assert not two.finish_migration(wanted, made, None)
    assert two.report(moving.id).state is MachineState.ABSENT
    assert one.cancel_migration(wanted, made).state is MachineState.RUNNING
    assert one.cancel_migration(wanted, made).state is MachineState.RUNNING
    one.remove(moving.id)


def test_stopped_machine_cannot_be_live_migrated(pair: tuple[Hypervisor, Hypervisor], moving: MachineSpec) -> None:
    one, two = pair
    one.ensure_running(moving)
    one.ensure_stopped(moving.id, grace_seconds=0)
    with pytest.raises(HypervisorError):
        one.begin_migration(moving, live=True)
    with pytest.raises(HypervisorError):
        two.begin_migration(moving, live=False)
    one.remove(moving.id)
