"""Hosts (hypervisors, services, aggregates, zones), usage, quotas, and unsupported compute APIs."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from app.core.clock import ManualClock
from hypervisor.api.errors import LaunchFailed
from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"


def moment(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def test_usage_is_exact_and_counts_deleted_servers(
    log_in: Callable[[str], Api], as_member: Api, make_server: Callable[..., str], host: Host, clock: ManualClock
) -> None:
    begin = clock.now()
    small, large = make_server(name="small"), make_server(name="large", flavorRef="3")
    clock.advance(1801)
    as_member.delete(f"{COMPUTE}/servers/{large}")
    host.work()
    clock.advance(1234)
    query = f"start={moment(begin - timedelta(hours=1))}&end={moment(clock.now())}"
    shown = as_member.get(f"{COMPUTE}/os-simple-tenant-usage/{as_member.project_id}?{query}").json["tenant_usage"]
    by_name = {one["name"]: one for one in shown["server_usages"]}
    assert by_name["large"]["hours"] * 3600 == pytest.approx(1801)
    assert by_name["large"]["state"] == "terminated"
    assert by_name["large"]["uptime"] == 1801
    assert by_name["small"]["hours"] * 3600 == pytest.approx(3035)
    assert by_name["small"]["ended_at"] is None
    assert by_name["small"]["instance_id"] == small
    assert shown["total_vcpus_usage"] * 3600 == pytest.approx(3035 * 1 + 1801 * 2)
    assert shown["total_memory_mb_usage"] * 3600 == pytest.approx(3035 * 128 + 1801 * 2048)
    assert shown["total_local_gb_usage"] * 3600 == pytest.approx(3035 * 1 + 1801 * 20)

    middle = f"start={moment(begin + timedelta(seconds=1800))}&end={moment(begin + timedelta(seconds=1810))}"
    shown = as_member.get(f"{COMPUTE}/os-simple-tenant-usage/{as_member.project_id}?{middle}").json["tenant_usage"]
    assert shown["total_hours"] * 3600 == pytest.approx(10 + 1)

    admin = log_in("admin")
    (project,) = admin.get(f"{COMPUTE}/os-simple-tenant-usage?{query}").json["tenant_usages"]
    assert project["tenant_id"] == as_member.project_id
    assert "server_usages" not in project
    assert as_member.get(f"{COMPUTE}/os-simple-tenant-usage").status_code == 403
    assert as_member.get(f"{COMPUTE}/os-simple-tenant-usage/{admin.project_id}").status_code == 403


def test_usage_counts_each_size_for_as_long_as_a_server_had_it(
    as_member: Api, make_server: Callable[..., str], host: Host, clock: ManualClock
) -> None:
    begin = clock.now()
    server_id = make_server()

    def act(**action: object) -> None:
        host.conductor.register(host.hypervisor.describe())
        answer = as_member.post(f"{COMPUTE}/servers/{server_id}/action", json=action)
        assert answer.status_code == 202, answer.text
        host.work()

    def used(since: int, until: int) -> tuple[float, float]:
        period = f"start={moment(begin + timedelta(seconds=since))}&end={moment(begin + timedelta(seconds=until))}"
        path = f"{COMPUTE}/os-simple-tenant-usage/{as_member.project_id}?{period}"
        shown = as_member.get(path).json["tenant_usage"]
        return round(shown["total_memory_mb_usage"] * 3600), round(shown["total_hours"] * 3600)

    clock.advance(100)
    act(resize={"flavorRef": "2"})
    clock.advance(50)
    act(revertResize=None)
    clock.advance(30)
    host.hypervisor.fail_next("resize", LaunchFailed("no room on the disk"))
    act(resize={"flavorRef": "3"})
    clock.advance(20)
    assert used(0, 200) == (100 * 128 + 50 * 512 + 50 * 128, 200)
    assert used(90, 110) == (10 * 128 + 10 * 512, 20)
    assert used(110, 120) == (10 * 512, 10)
    assert as_member.delete(f"{COMPUTE}/servers/{server_id}").status_code == 204
    host.work()
    clock.advance(1000)
    assert used(0, 1200) == (150 * 128 + 50 * 512, 200)


def test_usage_has_pages_from_2_40_on(as_admin: Api, make_server: Callable[..., str], clock: ManualClock) -> None:
    begin = clock.now()
    make_server(name="n", max_count=3)
    clock.advance(100)
    path = f"{COMPUTE}/os-simple-tenant-usage?start={moment(begin)}&end={moment(clock.now())}&detailed=1&limit=2"
    seen = 0
    while path:
        body = as_admin.at("2.40").get(path).json
        seen += sum(len(one["server_usages"]) for one in body["tenant_usages"])
        path = next((link["href"] for link in body.get("tenant_usages_links", [])), "")
    assert seen == 3
    wrong = f"start={moment(clock.now())}&end={moment(begin)}"
    assert as_admin.get(f"{COMPUTE}/os-simple-tenant-usage?{wrong}").status_code == 400
    assert as_admin.get(f"{COMPUTE}/os-simple-tenant-usage?start=now").status_code == 400


def test_a_disabled_host_gets_no_servers(as_admin: Api, make_server: Callable[..., str], as_member: Api) -> None:
    api = as_admin.at("2.53")
    (service,) = api.get(f"{COMPUTE}/os-services").json["services"]
    assert (service["status"], service["state"], service["forced_down"]) == ("enabled", "up", False)
    path = f"{COMPUTE}/os-services/{service['id']}"
    body = {"status": "disabled", "disabled_reason": "disk"}
    assert api.put(path, json=body).json["service"]["disabled_reason"] == "disk"
    shown = as_member.get(f"{COMPUTE}/servers/{make_server()}").json["server"]
    assert shown["fault"]["message"] == "No valid host was found. fake-host: it is disabled."
    assert as_member.get(f"{COMPUTE}/os-availability-zone").json["availabilityZoneInfo"][0]["zoneState"] == {
        "available": False
    }
    assert api.put(path, json={"status": "enabled"}).json["service"]["disabled_reason"] is None
    assert as_member.get(f"{COMPUTE}/servers/{make_server()}").json["server"]["status"] == "ACTIVE"
    assert api.put(path, json={"disabled_reason": "x"}).status_code == 400
    assert api.delete(path).status_code == 409
    assert as_member.get(f"{COMPUTE}/os-services").status_code == 403


def test_the_older_calls_for_services(as_admin: Api, host: Host) -> None:
    which = {"host": "fake-host", "binary": "nova-compute"}
    path = f"{COMPUTE}/os-services"
    assert as_admin.put(f"{path}/disable", json=which).json["service"]["status"] == "disabled"
    reason = {**which, "disabled_reason": "disk"}
    assert as_admin.put(f"{path}/disable-log-reason", json=reason).json["service"]["disabled_reason"] == "disk"
    assert as_admin.put(f"{path}/enable", json=which).json["service"]["status"] == "enabled"
    down = as_admin.at("2.11").put(f"{path}/force-down", json={**which, "forced_down": True})
    assert down.json["service"]["forced_down"] is True
    assert as_admin.get(path).json["services"][0]["state"] == "down"
    assert as_admin.put(f"{path}/force-down", json=which).status_code == 404
    assert as_admin.put(f"{path}/enable", json={**which, "host": "nobody"}).status_code == 404


def test_a_silent_host_is_down(as_admin: Api, host: Host, clock: ManualClock) -> None:
    clock.advance(31)
    assert as_admin.get(f"{COMPUTE}/os-hypervisors").json["hypervisors"][0]["state"] == "down"
    assert as_admin.at("2.88").get(f"{COMPUTE}/os-hypervisors/detail").json["hypervisors"][0]["state"] == "down"


def test_hypervisors(as_admin: Api, make_server: Callable[..., str]) -> None:
    server_id = make_server(name="web")
    path = f"{COMPUTE}/os-hypervisors"
    (old,) = as_admin.get(f"{path}/detail").json["hypervisors"]
    assert (old["running_vms"], old["vcpus_used"], old["memory_mb_used"], old["local_gb_used"]) == (1, 1, 128, 1)
    assert as_admin.get(f"{path}/statistics").json["hypervisor_statistics"]["running_vms"] == 1
    assert as_admin.get(f"{path}/fake/servers").json["hypervisors"][0]["servers"] == [
        {"uuid": server_id, "name": "web"}
    ]
    new = as_admin.at("2.88").get(f"{path}/detail?with_servers=true").json["hypervisors"][0]
    assert new["servers"] == [{"uuid": server_id, "name": "web"}]
    assert "vcpus" not in new
    assert "uptime" in new
    assert as_admin.at("2.88").get(f"{path}/statistics").status_code in (400, 404)
    assert as_admin.at("2.53").get(f"{path}/fake/search").status_code == 404
    assert as_admin.at("2.53").get(f"{path}?hypervisor_hostname_pattern=nothing").status_code == 404
    assert as_admin.at("2.53").get(f"{path}/1").status_code == 400


def test_hosts_as_they_were_listed_until_2_42(as_admin: Api, as_member: Api, make_server: Callable[..., str]) -> None:
    make_server(), make_server()
    path, name = f"{COMPUTE}/os-hosts", "fake-host"
    listed = [{"host_name": name, "service": "compute", "zone": "nova"}]
    assert as_admin.get(path).json == as_admin.get(f"{path}?zone=nova").json == {"hosts": listed}
    assert as_admin.get(f"{path}?zone=elsewhere").json == {"hosts": []}
    rows = {row["resource"].pop("project"): row["resource"] for row in as_admin.get(f"{path}/{name}").json["host"]}
    assert list(rows) == ["(total)", "(used_now)", "(used_max)", as_member.project_id]
    assert rows["(used_now)"] == {"host": name, "cpu": 2, "memory_mb": 256, "disk_gb": 2}
    assert rows["(used_now)"] == rows["(used_max)"] == rows[as_member.project_id]
    assert as_admin.put(f"{path}/{name}", json={"status": "Disable"}).json == {"host": name, "status": "disabled"}
    assert as_admin.get(f"{COMPUTE}/os-services").json["services"][0]["status"] == "disabled"
    assert as_admin.put(f"{path}/{name}", json={"status": "enable"}).json == {"host": name, "status": "enabled"}
    for body, status in (({}, 400), ({"status": "off"}, 400), ({"maintenance_mode": "enable"}, 501)):
        assert as_admin.put(f"{path}/{name}", json=body).status_code == status
    assert as_admin.put(f"{path}/nobody", json={"status": "enable"}).status_code == 404
    assert as_admin.get(f"{path}/{name}/reboot").status_code == 501
    assert as_member.get(f"{path}/{name}/reboot").status_code == 403
    assert as_admin.get(f"{path}/nobody").status_code == 404
    assert as_admin.at("2.43").get(path).status_code == as_admin.at("2.43").get(f"{path}/{name}").status_code == 404
    assert as_member.get(path).status_code == 403


def test_aggregates_make_zones(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], host: Host, image: str
) -> None:
    path = f"{COMPUTE}/os-aggregates"
    made = as_admin.post(path, json={"aggregate": {"name": "fast", "availability_zone": "east"}}).json["aggregate"]
    assert as_admin.post(path, json={"aggregate": {"name": "fast"}}).status_code == 409
    one = f"{path}/{made['id']}"
    added = as_admin.post(f"{one}/action", json={"add_host": {"host": "fake-host"}}).json["aggregate"]
    assert (added["hosts"], added["metadata"]) == (["fake-host"], {"availability_zone": "east"})
    assert as_admin.post(f"{one}/action", json={"add_host": {"host": "fake-host"}}).status_code == 409
    assert as_admin.post(f"{one}/action", json={"add_host": {"host": "nobody"}}).status_code == 404
    zones = as_member.get(f"{COMPUTE}/os-availability-zone").json["availabilityZoneInfo"]
    assert [zone["zoneName"] for zone in zones] == ["east"]
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1", "availability_zone": "nova"}}
    refused = as_member.post(f"{COMPUTE}/servers", json=body)
    assert refused.json["badRequest"]["message"].startswith("The requested availability zone is not available")
    host.conductor.register(host.hypervisor.describe())
    server = as_member.get(f"{COMPUTE}/servers/{make_server(availability_zone='east')}").json["server"]
    assert server["OS-EXT-AZ:availability_zone"] == "east"
    assert as_admin.put(one, json={"aggregate": {"availability_zone": "west"}}).status_code == 409
    set_ = {"set_metadata": {"metadata": {"ssd": "true"}}}
    assert as_admin.post(f"{one}/action", json=set_).json["aggregate"]["metadata"]["ssd"] == "true"
    assert as_admin.delete(one).status_code == 400
    as_member.delete(f"{COMPUTE}/servers/{server['id']}")
    host.work()
    assert as_admin.post(f"{one}/action", json={"remove_host": {"host": "fake-host"}}).json["aggregate"]["hosts"] == []
    assert as_admin.delete(one).status_code == 200
    assert as_admin.get(one).status_code == 404
    assert as_member.get(path).status_code == 403


def test_quota_sets_and_classes(as_admin: Api, as_member: Api, make_server: Callable[..., str]) -> None:
    make_server()
    path = f"{COMPUTE}/os-quota-sets/{as_member.project_id}"
    low = as_admin.put(path, json={"quota_set": {"cores": 0}})
    assert "must be greater than or equal to already used and reserved 1" in low.json["badRequest"]["message"]
    assert as_admin.put(path, json={"quota_set": {"cores": 0, "force": True}}).json["quota_set"]["cores"] == 0
    detail = as_member.get(f"{path}/detail").json["quota_set"]
    assert detail["instances"] == {"limit": 100, "in_use": 1, "reserved": 0}
    assert as_admin.put(path, json={"quota_set": {"cores": -2}}).status_code == 400
    assert as_admin.put(path, json={"quota_set": {"nonsense": 1}}).status_code == 400
    assert as_member.put(path, json={"quota_set": {"cores": 1}}).status_code == 403
    other = f"{COMPUTE}/os-quota-sets/{as_admin.project_id}"
    assert as_member.get(other).status_code == 403
    classes = f"{COMPUTE}/os-quota-class-sets/default"
    assert as_admin.put(classes, json={"quota_class_set": {"instances": 7}}).status_code == 200
    assert as_admin.get(other).json["quota_set"]["instances"] == 7
    assert as_member.get(f"{COMPUTE}/limits").json["limits"]["absolute"]["maxTotalInstances"] == 7
    assert as_admin.delete(path).status_code == 202
    assert as_admin.get(path).json["quota_set"]["cores"] == 200


def test_tags_of_a_server(as_member: Api, make_server: Callable[..., str]) -> None:
    api = as_member.at("2.26")
    path = f"{COMPUTE}/servers/{make_server()}/tags"
    assert api.put(path, json={"tags": ["b", "a", "a"]}).json == {"tags": ["a", "b"]}
    made = api.put(f"{path}/c")
    assert (made.status_code, made.headers["Location"]) == (201, f"http://localhost{path}/c")
    assert api.put(f"{path}/c").status_code == 204
    assert api.get(f"{path}/c").status_code == 204
    assert api.get(f"{path}/d").status_code == 404
    assert api.delete(f"{path}/c").status_code == 204
    assert api.put(path, json={"tags": [str(number) for number in range(51)]}).status_code == 400
    assert api.put(path, json={"tags": ["x" * 61]}).status_code == 400
    assert api.put(path, json={"tags": ["a,b"]}).status_code == 400
    assert as_member.at("2.25").get(path).status_code == 404
    assert api.delete(path).status_code == 204
    assert api.get(path).json == {"tags": []}


def test_changed_servers_fit_their_schema(as_member: Api, make_server: Callable[..., str]) -> None:
    path = f"{COMPUTE}/servers/{make_server()}"
    for version in ("2.1", "2.9", "2.19", "2.26", "2.47", "2.63", "2.71", "2.73", "2.75", "2.96"):
        answer = as_member.at(version).put(path, json={"server": {"name": version}})
        assert answer.json["server"]["name"] == version


def test_rebuilt_servers_fit_their_schema_for_admins(
    as_admin: Api, make_server: Callable[..., str], host: Host, image: str
) -> None:
    path = f"{COMPUTE}/servers/{make_server()}/action"
    for version in ("2.57", "2.75", "2.96"):
        answer = as_admin.at(version).post(path, json={"rebuild": {"imageRef": image}})
        assert "user_data" in answer.json["server"]
        host.work()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("os-cells", 410),
        ("os-certificates/root", 410),
        ("os-cloudpipe", 410),
        ("os-fping", 410),
        ("os-agents", 410),
        ("servers/x/os-virtual-interfaces", 410),
        ("os-baremetal-nodes", 404),
    ],
)
def test_removed_and_unsupported_apis_return_faults(as_member: Api, path: str, status: int) -> None:
    answer = as_member.get(f"{COMPUTE}/{path}")
    assert answer.status_code == status
    (fault,) = answer.json.values()
    assert fault["code"] == status


def test_images_by_way_of_compute_until_2_35(
    as_member: Api, as_admin: Api, image: str, make_server: Callable[..., str], host: Host, clock: ManualClock
) -> None:
    (shown,) = as_member.get(f"{COMPUTE}/images/detail").json["images"]
    assert (shown["id"], shown["status"], shown["name"]) == (image, "ACTIVE", "disk")
    assert as_member.get(f"{COMPUTE}/images/{image}").json["image"]["OS-EXT-IMG-SIZE:size"] == 1 << 20
    server_id = make_server()
    as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"createImage": {"name": "copy"}})
    host.work()
    for query in (f"server={server_id}", f"server={COMPUTE}/servers/{server_id}", "type=snapshot", "name=copy"):
        (found,) = as_member.get(f"{COMPUTE}/images/detail?{query}").json["images"]
        assert (found["name"], found["server"]["id"]) == ("copy", server_id)
        clock.advance(1)
    for query in ("minDisk=7", "minRam=64", "type=backup", f"changes-since={moment(clock.now())}", f"server={image}"):
        assert as_member.get(f"{COMPUTE}/images?{query}").json["images"] == []
    assert as_member.at("2.36").get(f"{COMPUTE}/images").status_code == 404
    meta = f"{COMPUTE}/images/{image}/metadata"
    assert as_member.post(meta, json={"metadata": {"a": "1"}}).json["metadata"]["a"] == "1"
    assert as_member.put(f"{meta}/a", json={"meta": {"a": "2"}}).json == {"meta": {"a": "2"}}
    assert as_member.delete(f"{meta}/a").status_code == 204
    assert as_member.get(f"{meta}/a").status_code == 404
    assert as_admin.put(meta, json={"metadata": {"b": "1"}}).json == {"metadata": {"b": "1"}}
    assert as_member.delete(f"{COMPUTE}/images/{image}").status_code == 204
    assert as_member.get(f"{COMPUTE}/images/{image}").status_code == 404


def test_version_2_is_2_1_without_microversions(as_member: Api, make_server: Callable[..., str]) -> None:
    server_id = make_server()
    assert as_member.get("/compute/v2").json["version"]["id"] == "v2.0"
    for path in (f"/compute/v2/servers/{server_id}", f"/compute/v2/{as_member.project_id}/servers/{server_id}"):
        assert "original_name" not in as_member.at("2.96").get(path).json["server"]["flavor"]


def test_an_id_left_out_is_not_found(as_admin: Api) -> None:
    for path in ("os-simple-tenant-usage/", "servers/", "flavors/"):
        assert as_admin.get(f"{COMPUTE}/{path}").status_code == 404
        assert as_admin.delete(f"{COMPUTE}/{path}").status_code == 404
    assert as_admin.get(f"{COMPUTE}/").status_code == 200
