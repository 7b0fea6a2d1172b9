"""Log lines contain the ids of their request, project and server."""

import logging
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from flask import Flask

from app.core import log_context
from compute_agent.agent import Agent
from compute_agent.conductor_client import RemoteConductor
from compute_api.conductor.service import LocalConductor
from compute_api.rpc import messages
from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import MachineReport, MachineSpec
from hypervisor.fake import FakeHypervisor
from tests.api.conftest import Api, Host
from tests.api.identity_fixtures import V3, authenticate, password_auth

SERVERS = "/compute/v2.1/servers"
GLOBAL_ID = "req-01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """`lines()` returns log lines in the format of the cloud's processes."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(log_context.ContextFilter())
    handler.setFormatter(logging.Formatter(log_context.FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield lambda: stream.getvalue().splitlines()
    finally:
        root.removeHandler(handler)


def test_a_500_is_logged_with_the_request_that_users_report(
    as_member: Api, app: Flask, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    def fail(**_: str) -> None:
        raise RuntimeError("broken")

    monkeypatch.setitem(app.view_functions, "compute.show_server", fail)
    server_id = "01234567-89ab-cdef-0123-456789abcdef"
    headers = {"X-OpenStack-Request-ID": GLOBAL_ID}
    answer = as_member.client.get(f"{SERVERS}/{server_id}", headers={**headers, "X-Auth-Token": as_member.token or ""})
    assert answer.status_code == 500
    request_id = answer.headers["X-Openstack-Request-Id"]
    assert request_id != GLOBAL_ID
    assert answer.headers["X-Compute-Request-Id"] == request_id
    assert request_id in answer.text
    (line,) = [line for line in lines() if "failed" in line]
    context = f"[request_id={request_id} global_request_id={GLOBAL_ID} project_id={as_member.project_id} "
    assert f"{context}server_id={server_id}]" in line


@pytest.mark.parametrize("sent", ["", "req-1", "01234567-89ab-cdef-0123-456789abcdef", f"{GLOBAL_ID} admin logged in"])
def test_other_ids_of_clients_are_not_logged(client: Api, lines: Callable[[], list[str]], sent: str) -> None:
    client.headers["X-OpenStack-Request-ID"] = sent
    answer = authenticate(client, password_auth("a" * 32, "wrong"))
    assert f"[request_id={answer.headers['X-Openstack-Request-Id']}]" in lines()[-1]


def test_log_lines_do_not_mix_requests(client: Api, as_member: Api, lines: Callable[[], list[str]]) -> None:
    assert as_member.get(f"{V3}/auth/projects").status_code == 200
    authenticate(client, password_auth("a" * 32, "wrong"))
    assert "project_id" not in lines()[-1]


class RemoteLike(RemoteConductor):
    """A remote host's conductor without a broker."""

    def __init__(self, conductor: LocalConductor) -> None:
        self._local = conductor

    def _request(self, name: str, **arguments: object) -> object:
        return messages.dispatch(self._local, {"ask": name, **arguments})


class Broken(FakeHypervisor):
    """A fake host on which every machine fails to start."""

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        logging.getLogger("hypervisor.machines.launch").info("starting %s", spec.name)
        raise HypervisorError("no power")


@pytest.mark.parametrize("is_remote", [False, True])
def test_hosts_log_the_request_id_of_operations(
    as_member: Api,
    host: Host,
    make_server: Callable[..., str],
    lines: Callable[[], list[str]],
    is_remote: bool,
) -> None:
    server_id = make_server(work=False)
    (action,) = as_member.get(f"{SERVERS}/{server_id}/os-instance-actions").json["instanceActions"]
    conductor = RemoteLike(host.conductor) if is_remote else host.conductor
    agent = Agent(conductor, Broken("fake-host"), threads=1, grace_seconds=1.0)
    (operation_id,) = host.conductor.waiting()
    logging.getLogger("hypervisor.machines.launch").setLevel(logging.INFO)
    agent.carry_out(operation_id)
    agent.stop()
    agent.run()
    context = f"[request_id={action['request_id']} server_id={server_id}]"
    starting, failed = (line for line in lines() if "starting" in line or "no power" in line)
    assert context in starting
    assert context in failed
