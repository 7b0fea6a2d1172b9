"""Random sequences of server actions, host failures and agent restarts end without stuck states or leftovers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from app.core.clock import ManualClock
from app.db.database import Database
from compute_agent.agent import Agent
from compute_agent.tasks import carry_out
from compute_api.models import Operation
from compute_api.rpc.messages import ClaimedOperation
from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import MachineState
from tests.api.conftest import Api, Host

SERVERS = "/compute/v2.1/servers"
ACTIONS: list[dict[str, Any]] = [
    {"os-start": None},
    {"os-stop": None},
    {"reboot": {"type": "SOFT"}},
    {"reboot": {"type": "HARD"}},
    {"pause": None},
    {"unpause": None},
    {"suspend": None},
    {"resume": None},
    {"rescue": None},
    {"unrescue": None},
    {"rebuild": {}},
    {"resize": {"flavorRef": "2"}},
    {"resize": {"flavorRef": "3"}},
    {"confirmResize": None},
    {"revertResize": None},
    {"createImage": {"name": "copy"}},
    {"createBackup": {"name": "backup", "backup_type": "daily", "rotation": 1}},
    {"shelve": None},
    {"unshelve": None},
    {"os-resetState": {"state": "active"}},
    {"os-resetState": {"state": "error"}},
]
METHODS = ["ensure_running", "reboot", "rebuild", "resize", "revert_resize", "suspend", "snapshot", "ensure_stopped"]
STEPS = st.one_of(
    st.tuples(st.just("act"), st.sampled_from(ACTIONS)),
    st.tuples(st.sampled_from(["work", "work", "begin", "end", "die", "compare", "power off", "crash", "late"])),
    st.tuples(st.sampled_from(["attach", "detach"])),
    st.tuples(st.just("fail"), st.sampled_from(METHODS)),
)
RESTS = {
    "ACTIVE": {MachineState.RUNNING},
    "SHUTOFF": {MachineState.SHUTOFF},
    "PAUSED": {MachineState.PAUSED},
    "SUSPENDED": {MachineState.SHUTOFF},
    "RESCUE": {MachineState.RUNNING, MachineState.SHUTOFF, MachineState.CRASHED},
    "VERIFY_RESIZE": {MachineState.RUNNING, MachineState.SHUTOFF, MachineState.CRASHED},
    "SHELVED_OFFLOADED": {MachineState.ABSENT},
    "ERROR": set(MachineState),
}


class Story:
    """One server and the steps of a sequence."""

    def __init__(
        self, owner: Api, admin: Api, host: Host, database: Database, clock: ManualClock, image: str, server_id: str
    ) -> None:
        self.owner, self.admin, self.host, self.image = owner, admin, host, image
        self.database, self.clock = database, clock
        self.server_id = server_id
        self.begun: list[ClaimedOperation] = []
        self.agent = Agent(host.conductor, host.hypervisor, threads=1, grace_seconds=1.0)

    def server(self) -> dict[str, Any]:
        server: dict[str, Any] = self.owner.get(f"{SERVERS}/{self.server_id}").json["server"]
        return server

    def take(self, step: tuple[Any, ...]) -> None:
        machine = self.host.hypervisor.machines.get(self.server_id)
        running = machine is not None and machine.state is MachineState.RUNNING
        match step:
            case ("act", body):
                body = {"rebuild": {"imageRef": self.image}} if "rebuild" in body else body
                api = self.admin if "os-resetState" in body else self.owner
                answer = api.post(f"{SERVERS}/{self.server_id}/action", json=body)
                assert answer.status_code in (200, 202, 204, 400, 409), answer.text
            case ("attach",):
                path = f"{SERVERS}/{self.server_id}/os-interface"
                assert self.owner.post(path, json={"interfaceAttachment": {}}).status_code in (200, 409)
            case ("detach",):
                path = f"{SERVERS}/{self.server_id}/os-interface"
                for one in self.owner.get(path).json["interfaceAttachments"][1:]:
                    assert self.owner.delete(f"{path}/{one['port_id']}").status_code in (202, 409)
            case ("work",):
                self.end()
                self.host.work()
            case ("begin",):
                self.begun += [
                    work for each in self.host.conductor.waiting() if (work := self.host.conductor.claim(each))
                ]
            case ("end",):
                self.end()
            case ("die",):  # the agent dies: half of the claimed operations were executed, none is reported
                for work in self.begun[::2]:
                    carry_out(work, self.host.hypervisor, 1.0)
                self.begun = []
                self.host.conductor.requeue()
            case ("late",):
                with self.database.transaction() as session:
                    long_ago = self.clock.now() - timedelta(hours=6)
                    session.execute(update(Operation).values(started_at=long_ago))
                self.agent.reconcile()
            case ("compare",):
                self.agent.reconcile()
            case ("power off",) if running:
                self.host.hypervisor.guest_powers_off(self.server_id)
            case ("crash",) if running:
                self.host.hypervisor.guest_crashes(self.server_id)
            case ("fail", method):
                self.host.hypervisor.fail_next(method, HypervisorError("the host is out of order"))

    def end(self) -> None:
        for work in self.begun:
            self.host.conductor.finish(work, carry_out(work, self.host.hypervisor, 1.0))
        self.begun = []


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=3, max_size=25))
def test_a_server_ends_where_its_machine_is_and_can_always_be_deleted(
    as_member: Api,
    as_admin: Api,
    host: Host,
    database: Database,
    clock: ManualClock,
    image: str,
    make_server: Callable[..., str],
    steps: list[tuple[Any, ...]],
) -> None:
    host.hypervisor._failures.clear()
    story = Story(as_member, as_admin, host, database, clock, image, make_server())
    for step in steps:
        story.take(step)

    story.end()
    host.hypervisor._failures.clear()
    host.work()
    story.agent.reconcile()
    server = story.server()
    assert server["OS-EXT-STS:task_state"] is None
    assert host.hypervisor.report(story.server_id).state in RESTS[server["status"]], server["status"]
    if server["status"] == "ERROR":
        assert server["fault"]["message"]

    assert as_member.delete(f"{SERVERS}/{story.server_id}").status_code == 204
    host.work()
    story.agent.reconcile()
    assert as_member.get(f"{SERVERS}/{story.server_id}").status_code == 404
    assert host.hypervisor.machines == {}
    assert as_member.get(f"/network/v2.0/ports?device_id={story.server_id}").json["ports"] == []
    used = as_member.get("/compute/v2.1/limits").json["limits"]["absolute"]
    assert (used["totalInstancesUsed"], used["totalCoresUsed"], used["totalRAMUsed"]) == (0, 0, 0)
    (known,) = as_admin.get("/compute/v2.1/os-hypervisors/detail").json["hypervisors"]
    assert (known["vcpus_used"], known["memory_mb_used"], known["local_gb_used"]) == (0, 0, 0)
    left = as_member.get("/image/v2/images?visibility=private").json["images"]
    assert {one["status"] for one in left} <= {"active"}
    for one in left:
        as_member.delete(f"/image/v2/images/{one['id']}")
