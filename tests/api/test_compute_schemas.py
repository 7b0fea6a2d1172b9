"""Compute requests at every microversion that changes a response, validated against tempest's schemas."""

from collections.abc import Callable

import pytest
from tempest.lib.exceptions import InvalidHTTPResponseBody

from tests.api.conftest import Api

VERSIONS = [
    "2.1",
    "2.2",
    "2.3",
    "2.6",
    "2.8",
    "2.9",
    "2.10",
    "2.11",
    "2.13",
    "2.16",
    "2.19",
    "2.23",
    "2.26",
    "2.28",
    "2.33",
    "2.35",
    "2.36",
    "2.39",
    "2.41",
    "2.45",
    "2.47",
    "2.48",
    "2.50",
    "2.51",
    "2.53",
    "2.54",
    "2.55",
    "2.57",
    "2.58",
    "2.59",
    "2.61",
    "2.62",
    "2.63",
    "2.64",
    "2.70",
    "2.71",
    "2.73",
    "2.75",
    "2.79",
    "2.80",
    "2.84",
    "2.88",
    "2.89",
    "2.96",
]
COMPUTE = "/compute/v2.1"


def number(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


@pytest.mark.parametrize("role", ["demo", "admin"])
def test_every_read_fits_its_schema(
    log_in: Callable[[str], Api], as_member: Api, make_server: Callable[..., str], role: str
) -> None:
    server_id = make_server(metadata={"a": "b"})
    as_member.post(f"{COMPUTE}/os-keypairs", json={"keypair": {"name": "k"}})
    action = as_member.get(f"{COMPUTE}/servers/{server_id}/os-instance-actions").json["instanceActions"][0]
    port = as_member.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"][0]["id"]
    wrong = []
    for version in VERSIONS:
        api = log_in(role).at(version)
        for path in paths(api, role, number(version), server_id, action["request_id"], port):
            try:
                answer = api.get(f"{COMPUTE}/{path}")
            except InvalidHTTPResponseBody as error:
                wrong.append(f"{version} {path}: {str(error)[:300]}")
                continue
            if answer.status_code != 200:
                wrong.append(f"{version} {path}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []


def paths(api: Api, role: str, at: tuple[int, int], server_id: str, request_id: str, port: str) -> list[str]:
    project = api.project_id
    paths = [
        "",
        "servers",
        "servers?limit=1&all_tenants=1" if role == "admin" else "servers?limit=1",
        "servers/detail",
        "servers/detail?limit=1&all_tenants=1" if role == "admin" else "servers/detail?limit=1",
        f"servers/{server_id}",
        f"servers/{server_id}/ips",
        f"servers/{server_id}/ips/public",
        f"servers/{server_id}/metadata",
        f"servers/{server_id}/metadata/a",
        f"servers/{server_id}/os-volume_attachments",
        f"servers/{server_id}/os-security-groups",
        f"servers/{server_id}/os-instance-actions",
        f"servers/{server_id}/os-instance-actions/{request_id}",
        f"servers/{server_id}/os-interface",
        f"servers/{server_id}/os-interface/{port}",
        f"servers/{server_id}/os-server-password",
        "flavors",
        "flavors/detail",
        "flavors/detail?limit=1",
        "flavors/1",
        "flavors/1/os-extra_specs",
        "os-keypairs",
        "os-availability-zone",
        "limits",
        "extensions",
        f"os-quota-sets/{project}",
        f"os-quota-sets/{project}/detail",
        f"os-quota-sets/{project}/defaults",
        f"os-simple-tenant-usage/{project}",
        "os-server-groups",
    ]
    if role == "demo":
        paths += ["os-keypairs/k"]
    if at >= (2, 26):
        paths += [f"servers/{server_id}/tags"]
    if role == "admin":
        hypervisors = api.get(f"{COMPUTE}/os-hypervisors").json["hypervisors"]
        paths += [
            "os-hypervisors/detail",
            f"os-hypervisors/{hypervisors[0]['id']}",
            "os-services",
            "os-services?binary=nova-compute",
            "os-aggregates",
            "os-availability-zone/detail",
            "os-simple-tenant-usage",
            "os-simple-tenant-usage?detailed=1",
            "os-migrations",
            "os-quota-class-sets/default",
        ]
        if at < (2, 88):
            paths += ["os-hypervisors/statistics", f"os-hypervisors/{hypervisors[0]['id']}/uptime"]
        if at < (2, 43):
            paths += ["os-hosts", f"os-hosts/{hypervisors[0]['hypervisor_hostname']}"]
        if at < (2, 53):
            paths += ["os-hypervisors/fake/search", "os-hypervisors/fake/servers"]
        if at >= (2, 23):
            paths += [f"servers/{server_id}/migrations"]
    return paths
