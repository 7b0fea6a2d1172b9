"""Benchmark of reads in a cloud with many servers."""

from collections.abc import Callable, Iterator

import orjson

from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.filling import Filled
from benchmarks.fleet.measuring import Measured, measure
from benchmarks.load import Client

COMPUTE = "/compute/v2.1"
SECONDS = 2.0


def rows(cluster: Cluster, filled: Filled, api: int, patience: float = 1.0) -> Iterator[tuple[str, Measured]]:
    """Yield names and results of reads, each repeated without pause by one client."""
    trees = cluster.trees(api)

    def timed(client: Client, path: str, *, seconds: float = SECONDS * patience, least: int = 5) -> Measured:
        return measure(trees, [lambda _number: get(client, path)], seconds=seconds, least=least)

    admin = cluster.client(cluster.token("admin"))
    small, middle = (cluster.client(cluster.token("demo", one[0])) for one in (filled.small[0], filled.middle))
    ids = [server["id"] for server in orjson.loads(get(middle, f"{COMPUTE}/servers"))["servers"]]
    show = measure(trees, [_each(middle, [f"{COMPUTE}/servers/{one}" for one in ids])], seconds=SECONDS * patience)
    yield "GET server, each of a project once or more", show
    listed = f"{COMPUTE}/servers/detail"
    yield f"GET servers/detail of {filled.small[0][1]}", timed(small, listed)
    yield f"GET servers/detail of {len(ids)}", timed(middle, listed)
    others = [f"{listed}?all_tenants=1&project_id={project}" for project, _ in filled.projects[2:]]
    yield "the same of other projects, none seen before", measure(trees, [_each(admin, others)], seconds=0, least=20)
    page = f"{listed}?all_tenants=1&limit=1000"
    yield "admin: GET servers/detail of all projects, 1,000", timed(admin, page, least=3)
    middle_of_all = _far(admin, filled)
    yield "the same from a marker in the middle", timed(admin, f"{page}&marker={middle_of_all}", least=3)
    yield "admin: servers/detail by host", timed(admin, f"{listed}?all_tenants=1&host={_host(admin)}", least=3)
    name = f"{listed}?all_tenants=1&name=server-77$"
    yield "admin: servers/detail by pattern of name", timed(admin, name, least=3)
    yield "changes-since of a project, nothing new", timed(middle, f"{listed}?changes-since=2100-01-01T00:00:00Z")
    yield "admin: GET os-hypervisors", timed(admin, f"{COMPUTE}/os-hypervisors", least=3)
    yield "admin: GET os-hypervisors/detail", timed(admin, f"{COMPUTE}/os-hypervisors/detail", least=3)
    yield "admin: GET os-services", timed(admin, f"{COMPUTE}/os-services", least=3)
    yield "admin: GET ports of all projects, 1,000", timed(admin, "/network/v2.0/ports?limit=1000", least=3)
    month = "start=2000-01-01T00:00:00&end=2100-01-01T00:00:00"
    usage = f"{COMPUTE}/os-simple-tenant-usage"
    yield "usage of a project", timed(middle, f"{usage}/{filled.middle[0]}?{month}", least=3)
    yield "admin: usage of all projects, a page of 1,000", timed(admin, f"{usage}?{month}&limit=1000", least=3)
    old = Client(cluster.settings.address[1], {"X-Auth-Token": cluster.token("admin")})
    yield "admin: usage of all projects at once, at 2.1", timed(old, f"{usage}?{month}", seconds=0, least=2)


def get(client: Client, path: str) -> bytes:
    """Return the body of a successful response."""
    status, answer = client("GET", path)
    assert status == 200, f"{path}: {status} {answer[:300]!r}"
    return answer


def _each(client: Client, paths: list[str]) -> Callable[[int], object]:
    return lambda number: get(client, paths[number % len(paths)])


def _far(admin: Client, filled: Filled) -> str:
    """Return a server in the middle of the largest project by age."""
    asked = f"{COMPUTE}/servers?all_tenants=1&project_id={filled.projects[len(filled.projects) // 2][0]}&limit=1"
    return str(orjson.loads(get(admin, asked))["servers"][0]["id"])


def _host(admin: Client) -> str:
    found = orjson.loads(get(admin, f"{COMPUTE}/os-hypervisors?limit=1"))["hypervisors"]
    return str(found[0]["hypervisor_hostname"])
