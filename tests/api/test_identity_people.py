"""Users and groups."""

import pytest

from tests.api.conftest import Api
from tests.api.identity_fixtures import V3, authenticate, bearer, by_password, by_token, give, make, new_bearer


def test_a_new_user_is_shown_without_its_password(as_admin: Api) -> None:
    made = make(as_admin, "user", name="ann", password="letmein", email="a@b.c", description="x")
    assert "password" not in made
    assert made["domain_id"] == "default"
    assert made["enabled"] is True
    assert made["email"] == "a@b.c"
    assert made["description"] == "x"
    assert made["options"] == {}
    assert made["password_expires_at"] is None
    assert "default_project_id" not in made
    assert as_admin.get(f"{V3}/users/{made['id']}").json["user"] == made
    changed = as_admin.patch(f"{V3}/users/{made['id']}", json={"user": {"email": "d@e.f", "name": "anna"}})
    assert changed.json["user"] == {**made, "email": "d@e.f", "name": "anna"}
    assert as_admin.delete(f"{V3}/users/{made['id']}").status_code == 204
    assert as_admin.get(f"{V3}/users/{made['id']}").status_code == 404


def test_names_are_taken_once_in_a_domain(as_admin: Api) -> None:
    other = make(as_admin, "domain")
    for kind in ("user", "group"):
        make(as_admin, kind, name="ann")
        assert as_admin.post(f"{V3}/{kind}s", json={kind: {"name": "ann"}}).status_code == 409
        make(as_admin, kind, name="ann", domain_id=other["id"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": ""},
        {"name": "x" * 256},
        {"name": ["x"]},
        {"name": "x", "password": 5},
        {"name": "x", "enabled": "true"},
        {"name": "x", "default_project_id": 5},
        {"name": "x", "default_project_id": "default"},
        {"name": "x", "options": []},
    ],
)
def test_bad_input_is_a_400(as_admin: Api, fields: object) -> None:
    assert as_admin.post(f"{V3}/users", json={"user": fields}).status_code == 400


def test_a_user_of_an_unknown_domain_is_a_404(as_admin: Api) -> None:
    for kind in ("user", "group", "project"):
        body = {kind: {"name": "x", "domain_id": "b" * 32}}
        assert as_admin.post(f"{V3}/{kind}s", json=body).status_code == 404


def test_user_names_that_differ_in_case_only_are_one_name(as_admin: Api) -> None:
    ann, bob = make(as_admin, "user", name="ann"), make(as_admin, "user", name="bob")
    assert as_admin.post(f"{V3}/users", json={"user": {"name": "Ann"}}).status_code == 409
    assert as_admin.patch(f"{V3}/users/{bob['id']}", json={"user": {"name": "ANN"}}).status_code == 409
    assert as_admin.patch(f"{V3}/users/{ann['id']}", json={"user": {"name": "Ann"}}).status_code == 200
    assert [user["id"] for user in as_admin.get(f"{V3}/users?name=aNN").json["users"]] == [ann["id"]]


def test_users_are_found_by_name_domain_and_state(as_admin: Api) -> None:
    make(as_admin, "user", name="ann", enabled=False)
    make(as_admin, "user", name="bob")

    def names(query: str) -> list[str]:
        return [user["name"] for user in as_admin.get(f"{V3}/users?{query}").json["users"]]

    assert names("name=ann") == ["ann"]
    assert names("enabled=0") == ["ann"]
    assert names("name__contains=o") == ["bob", "demo"]
    assert names("domain_id=default&nonsense=x") == ["admin", "ann", "bob", "demo"]


def test_users_see_and_change_only_themselves(as_member: Api, as_admin: Api) -> None:
    own = f"{V3}/users/{as_member.user_id}"
    assert as_member.get(own).status_code == 200
    assert as_member.get(f"{own}/groups").status_code == 200
    assert as_member.patch(own, json={"user": {"enabled": True}}).status_code == 403
    assert as_member.delete(own).status_code == 403
    other = f"{V3}/users/{as_admin.user_id}"
    assert as_member.get(other).status_code == 403
    assert as_member.get(f"{other}/groups").status_code == 403
    assert as_member.post(f"{V3}/users", json={"user": {"name": "x"}}).status_code == 403


def test_groups_have_members(as_admin: Api) -> None:
    group = make(as_admin, "group", name="crew", description="us", color="red")
    assert group["description"] == "us"
    assert group["color"] == "red"
    user = make(as_admin, "user", name="ann")
    path = f"{V3}/groups/{group['id']}"
    member = f"{path}/users/{user['id']}"
    assert as_admin.get(member).status_code == 404
    for _ in range(2):
        assert as_admin.put(member).status_code == 204
    assert as_admin.request("HEAD", member).status_code == 204
    assert [each["name"] for each in as_admin.get(f"{path}/users").json["users"]] == ["ann"]
    assert [each["name"] for each in as_admin.get(f"{V3}/users/{user['id']}/groups").json["groups"]] == ["crew"]
    assert as_admin.delete(member).status_code == 204
    assert as_admin.delete(member).status_code == 404
    assert as_admin.patch(path, json={"group": {"name": "team"}}).json["group"]["name"] == "team"
    assert as_admin.get(f"{V3}/groups?name=team").json["groups"][0]["id"] == group["id"]
    assert as_admin.put(f"{path}/users/{'c' * 32}").status_code == 404
    assert as_admin.delete(path).status_code == 204
    assert as_admin.get(path).status_code == 404


def test_a_domains_manager_manages_its_people_and_nobody_elses(as_admin: Api, client: Api) -> None:
    domain = make(as_admin, "domain")
    boss = make(as_admin, "user", domain_id=domain["id"], password="letmein")
    give(as_admin, f"domains/{domain['id']}/users/{boss['id']}", "manager")
    identity = {"methods": ["password"], "password": {"user": {"id": boss["id"], "password": "letmein"}}}
    manager = bearer(client, authenticate(client, identity, {"domain": {"id": domain["id"]}}))
    user = make(manager, "user")
    project = make(manager, "project")
    group = make(manager, "group")
    assert user["domain_id"] == project["domain_id"] == group["domain_id"] == domain["id"]
    assert {each["name"] for each in manager.get(f"{V3}/users").json["users"]} == {boss["name"], user["name"]}
    assert [each["id"] for each in manager.get(f"{V3}/domains").json["domains"]] == [domain["id"]]
    place = f"projects/{project['id']}/users/{user['id']}"
    give(manager, place, "member")
    give(manager, f"domains/{domain['id']}/groups/{group['id']}", "reader")
    admin_role = as_admin.get(f"{V3}/roles?name=admin").json["roles"][0]["id"]
    assert manager.put(f"{V3}/{place}/roles/{admin_role}").status_code == 403
    assert {row["role"]["id"] for row in manager.get(f"{V3}/role_assignments").json["role_assignments"]}
    assert all(
        "system" not in row["scope"] and row["scope"].get("project", {}).get("id") != as_admin.project_id
        for row in manager.get(f"{V3}/role_assignments").json["role_assignments"]
    )
    outside = [
        ("POST", "users", {"user": {"name": "x", "domain_id": "default"}}),
        ("POST", "projects", {"project": {"name": "x", "domain_id": "default"}}),
        ("PATCH", f"users/{as_admin.user_id}", {"user": {"password": "x"}}),
        ("DELETE", f"projects/{as_admin.project_id}", None),
        ("GET", "users?domain_id=default", None),
        ("POST", "domains", {"domain": {"name": "x"}}),
        ("POST", "roles", {"role": {"name": "x"}}),
        ("PUT", f"projects/{as_admin.project_id}/users/{boss['id']}/roles/{admin_role}", None),
    ]
    for method, path, body in outside:
        assert manager.request(method, f"{V3}/{path}", json=body).status_code == 403, (method, path)


def test_a_system_reader_reads_everything_and_writes_nothing(as_admin: Api, client: Api) -> None:
    user = make(as_admin, "user", password="letmein")
    give(as_admin, f"system/users/{user['id']}", "reader")
    identity = {"methods": ["password"], "password": {"user": {"id": user["id"], "password": "letmein"}}}
    auditor = bearer(client, authenticate(client, identity, {"system": {"all": True}}))
    for path in ("users", "projects", "domains", "roles", "groups", "role_assignments", "services", "endpoints"):
        assert auditor.get(f"{V3}/{path}").status_code == 200, path
    assert auditor.post(f"{V3}/users", json={"user": {"name": "x"}}).status_code == 403
    assert auditor.delete(f"{V3}/users/{as_admin.user_id}").status_code == 403


def test_a_domains_manager_makes_no_projects_in_other_domains(as_admin: Api, client: Api) -> None:
    domain, other = make(as_admin, "domain"), make(as_admin, "domain")
    theirs = make(as_admin, "project", domain_id=other["id"])
    boss = make(as_admin, "user", domain_id=domain["id"], password="letmein")
    give(as_admin, f"domains/{domain['id']}/users/{boss['id']}", "manager")
    login = authenticate(client, by_password(boss["id"], "letmein"), {"domain": {"id": domain["id"]}})
    manager = bearer(client, login)
    own = make(manager, "project")
    for place in ({}, {"domain_id": None}, {"domain_id": ""}, {"domain_id": domain["id"]}, {"domain_id": other["id"]}):
        for parent in (theirs["id"], other["id"]):
            body = {"project": {"name": "x", "parent_id": parent, **place}}
            assert manager.post(f"{V3}/projects", json=body).status_code in (400, 403), body
    below = make(manager, "project", parent_id=own["id"], domain_id=None)
    assert (below["domain_id"], below["parent_id"]) == (domain["id"], own["id"])
    assert make(manager, "project", parent_id=None, domain_id=None)["domain_id"] == domain["id"]


def test_a_projects_manager_and_reader_are_nobody_in_identity(as_admin: Api, client: Api) -> None:
    for role in ("manager", "reader"):
        somebody = new_bearer(as_admin, client, as_admin.project_id, role)
        for path in ("users", "projects", "domains", "roles", "role_assignments", "services"):
            assert somebody.get(f"{V3}/{path}").status_code == 403, (role, path)


def test_a_domain_admin_cannot_make_domains_by_a_domain_token(as_admin: Api) -> None:
    there = bearer(as_admin, authenticate(as_admin, by_token(as_admin.token), {"domain": {"id": "default"}}))
    assert there.get(f"{V3}/users").status_code == 200
    assert there.post(f"{V3}/domains", json={"domain": {"name": "x"}}).status_code == 403
