"""Failure injection after each step of create, stop and delete: database and host agree afterwards, nothing leaks."""

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_agent.agent import Agent
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from hypervisor.driver import QemuHypervisor
from tests.api.conftest import Api, app, as_admin, as_member, clock, database, image, routed, server, settings, template
from tests.host.support import HostMaker, OneImage, processes, traces
from tests.host.test_failures import FailureInjector, injector, steps_of

__all__ = [
    "app",
    "as_admin",
    "as_member",
    "clock",
    "database",
    "image",
    "injector",
    "routed",
    "server",
    "settings",
    "template",
]

COMPUTE = "/compute/v2.1"
# Modules that decide the order of steps on the host.
DECIDING = frozenset({"launch", "machines", "process"})


class Host:
    """A real host with its conductor."""

    def __init__(self, hypervisor: QemuHypervisor, conductor: LocalConductor) -> None:
        self.hypervisor = hypervisor
        self.conductor = conductor
        self.agent = Agent(conductor, hypervisor, threads=1, grace_seconds=0)
        conductor.register(hypervisor.describe())

    def work(self) -> None:
        """Execute all queued operations."""
        while waiting := self.conductor.waiting():
            for operation_id in waiting:
                if (work := self.conductor.claim(operation_id)) is not None:
                    self.conductor.finish(work, carry_out(work, self.hypervisor, 0))

    def reconcile(self) -> None:
        """Reconcile database and host, as the agent does periodically."""
        self.hypervisor.repair()
        self.agent.reconcile()

    def left(self) -> list[str]:
        return traces(self.hypervisor.config.installation, self.hypervisor.paths.state)

    def runs(self, server_id: str) -> bool:
        return processes(f"guest={self.hypervisor.config.installation}-{server_id}") != []


@pytest.fixture
def host(
    make_host: HostMaker,
    app: Flask,
    database: Database,
    clock: ManualClock,
    settings: Settings,
    blank_image: Path,
    tmp_path: Path,
) -> Host:
    real = make_host(OneImage(blank_image), state=tmp_path / "host", host_name=settings.host_name)
    return Host(real, LocalConductor(database, clock, settings))


class Cloud:
    """The cloud as seen by users and operators through the API."""

    def __init__(self, member: Api, admin: Api, image_id: str) -> None:
        self.member, self.admin, self.image_id = member, admin, image_id

    def create(self) -> str:
        body = {"server": {"name": "one", "imageRef": self.image_id, "flavorRef": "1"}}
        answer = self.member.post(f"{COMPUTE}/servers", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json["server"]["id"])

    def act(self, server_id: str, action: str) -> None:
        if action == "delete":
            self.member.delete(f"{COMPUTE}/servers/{server_id}")
        else:
            assert self.member.post(f"{COMPUTE}/servers/{server_id}/action", json={action: None}).status_code == 202

    def server(self, server_id: str) -> dict[str, Any] | None:
        answer = self.member.get(f"{COMPUTE}/servers/{server_id}")
        return answer.json["server"] if answer.status_code == 200 else None

    def used(self) -> list[Any]:
        """List the resources of servers: usage of the host, quota usage, ports."""
        (hypervisor,) = self.admin.at("2.53").get(f"{COMPUTE}/os-hypervisors/detail").json["hypervisors"]
        limits = self.member.get(f"{COMPUTE}/limits").json["limits"]["absolute"]
        return [
            {key: value for key, value in hypervisor.items() if key.endswith("_used")},
            {key: value for key, value in limits.items() if key.endswith("Used")},
            self.member.get("/network/v2.0/ports").json["ports"],
        ]


@pytest.fixture
def cloud(as_member: Api, as_admin: Api, image: str) -> Cloud:
    return Cloud(as_member, as_admin, image)


@pytest.mark.parametrize("action", ["create", "os-stop", "delete"])
def test_database_and_host_agree_after_a_failure(
    host: Host, cloud: Cloud, injector: FailureInjector, action: str
) -> None:
    unused = cloud.used()

    def prepare() -> str:
        server_id = cloud.create()
        if action != "create":
            host.work()
            cloud.act(server_id, action)
        return server_id

    def remove(server_id: str) -> None:
        for _ in range(2):  # a failed delete is repeated
            if cloud.server(server_id) is not None:
                cloud.act(server_id, "delete")
                host.work()
        host.reconcile()
        assert cloud.server(server_id) is None

    first = prepare()
    steps = [step for step in steps_of(host.work) if step[0] in DECIDING]
    remove(first)
    for step in steps:
        server_id = prepare()
        with injector.failing_after(step):
            host.work()
        host.reconcile()
        host.work()
        shown = cloud.server(server_id)
        if shown is not None:
            assert shown["OS-EXT-STS:task_state"] is None, step
            assert shown["status"] != "ERROR" or shown["fault"]["message"], step
            if shown["status"] in ("ACTIVE", "SHUTOFF"):
                assert host.runs(server_id) == (shown["status"] == "ACTIVE"), step
        remove(server_id)
        assert (cloud.used(), host.left()) == (unused, []), step
