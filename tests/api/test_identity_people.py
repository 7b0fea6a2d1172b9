"""Users and groups."""

import pytest

from tests.api.conftest import Api
from tests.api.identity_fixtures import (
    V3,
    api_with_token,
    assign_role,
    authenticate,
    create,
    create_user_api,
    password_auth,
    token_auth,
)


def test_a_new_user_is_shown_without_its_password(as_admin: Api) -> None:
    created = create(as_admin, "user", name="ann", password="letmein", email="a@b.c", description="x")
    assert "password" not in created
    assert created["domain_id"] == "default"
    assert created["enabled"] is True
    assert created["email"] == "a@b.c"
    assert created["description"] == "x"
    assert created["options"] == {}
    assert created["password_expires_at"] is None
    assert "default_project_id" not in created
    assert as_admin.get(f"{V3}/users/{created['id']}").json["user"] == created
    changed = as_admin.patch(f"{V3}/users/{created['id']}", json={"user": {"email": "d@e.f", "name": "anna"}})
    assert changed.json["user"] == {**created, "email": "d@e.f", "name": "anna"}
    assert as_admin.delete(f"{V3}/users/{created['id']}").status_code == 204
    assert as_admin.get(f"{V3}/users/{created['id']}").status_code == 404


def test_user_names_are_unique_in_a_domain(as_admin: Api) -> None:
    other = create(as_admin, "domain")
    for kind in ("user", "group"):
        create(as_admin, kind, name="ann")
        assert as_admin.post(f"{V3}/{kind}s", json={kind: {"name": "ann"}}).status_code == 409
        create(as_admin, kind, name="ann", domain_id=other["id"])


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


def test_user_names_are_case_insensitive(as_admin: Api) -> None:
    ann, bob = create(as_admin, "user", name="ann"), create(as_admin, "user", name="bob")
    assert as_admin.post(f"{V3}/users", json={"user": {"name": "Ann"}}).status_code == 409
    assert as_admin.patch(f"{V3}/users/{bob['id']}", json={"user": {"name": "ANN"}}).status_code == 409
    assert as_admin.patch(f"{V3}/users/{ann['id']}", json={"user": {"name": "Ann"}}).status_code == 200
    assert [user["id"] for user in as_admin.get(f"{V3}/users?name=aNN").json["users"]] == [ann["id"]]


def test_users_are_filtered_by_name_domain_and_enabled(as_admin: Api) -> None:
    create(as_admin, "user", name="ann", enabled=False)
    create(as_admin, "user", name="bob")

    def names(query: str) -> list[str]:
        return [user["name"] for user in as_admin.get(f"{V3}/users?{query}").json["users"]]

    assert names("name=ann") == ["ann"]
    assert names("enabled=0") == ["ann"]
    assert names("name__contains=o") == ["bob", "demo"]
    assert names("domain_id=default&nonsense=x") == ["admin", "ann", "bob", "demo"]


def test_users_access_only_themselves(as_member: Api, as_admin: Api) -> None:
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
    group = create(as_admin, "group", name="crew", description="us", color="red")
    assert group["description"] == "us"
    assert group["color"] == "red"
    user = create(as_admin, "user", name="ann")
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


def test_a_domain_manager_is_limited_to_its_domain(as_admin: Api, client: Api) -> None:
    domain = create(as_admin, "domain")
    boss = create(as_admin, "user", domain_id=domain["id"], password="letmein")
    assign_role(as_admin, f"domains/{domain['id']}/users/{boss['id']}", "manager")
    identity = {"methods": ["password"], "password": {"user": {"id": boss["id"], "password": "letmein"}}}
    manager = api_with_token(client, authenticate(client, identity, {"domain": {"id": domain["id"]}}))
    user = create(manager, "user")
    project = create(manager, "project")
    group = create(manager, "group")
    assert user["domain_id"] == project["domain_id"] == group["domain_id"] == domain["id"]
    assert {each["name"] for each in manager.get(f"{V3}/users").json["users"]} == {boss["name"], user["name"]}
    assert [each["id"] for each in manager.get(f"{V3}/domains").json["domains"]] == [domain["id"]]
    grant_path = f"projects/{project['id']}/users/{user['id']}"
    assign_role(manager, grant_path, "member")
    assign_role(manager, f"domains/{domain['id']}/groups/{group['id']}", "reader")
    admin_role = as_admin.get(f"{V3}/roles?name=admin").json["roles"][0]["id"]
    assert manager.put(f"{V3}/{grant_path}/roles/{admin_role}").status_code == 403
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
    user = create(as_admin, "user", password="letmein")
    assign_role(as_admin, f"system/users/{user['id']}", "reader")
    identity = {"methods": ["password"], "password": {"user": {"id": user["id"], "password": "letmein"}}}
    auditor = api_with_token(client, authenticate(client, identity, {"system": {"all": True}}))
    for path in ("users", "projects", "domains", "roles", "groups", "role_assignments", "services", "endpoints"):
        assert auditor.get(f"{V3}/{path}").status_code == 200, path
    assert auditor.post(f"{V3}/users", json={"user": {"name": "x"}}).status_code == 403
    assert auditor.delete(f"{V3}/users/{as_admin.user_id}").status_code == 403


def test_a_domain_manager_cannot_create_projects_elsewhere(as_admin: Api, client: Api) -> None:
    domain, other = create(as_admin, "domain"), create(as_admin, "domain")
    theirs = create(as_admin, "project", domain_id=other["id"])
    boss = create(as_admin, "user", domain_id=domain["id"], password="letmein")
    assign_role(as_admin, f"domains/{domain['id']}/users/{boss['id']}", "manager")
    login = authenticate(client, password_auth(boss["id"], "letmein"), {"domain": {"id": domain["id"]}})
    manager = api_with_token(client, login)
    own = create(manager, "project")
    for fields in (
        {},
        {"domain_id": None},
        {"domain_id": ""},
        {"domain_id": domain["id"]},
        {"domain_id": other["id"]},
    ):
        for parent in (theirs["id"], other["id"]):
            body = {"project": {"name": "x", "parent_id": parent, **fields}}
            assert manager.post(f"{V3}/projects", json=body).status_code in (400, 403), body
    below = create(manager, "project", parent_id=own["id"], domain_id=None)
    assert (below["domain_id"], below["parent_id"]) == (domain["id"], own["id"])
    assert create(manager, "project", parent_id=None, domain_id=None)["domain_id"] == domain["id"]


def test_project_managers_and_readers_have_no_identity_rights(as_admin: Api, client: Api) -> None:
    for role in ("manager", "reader"):
        holder = create_user_api(as_admin, client, as_admin.project_id, role)
        for path in ("users", "projects", "domains", "roles", "role_assignments", "services"):
            assert holder.get(f"{V3}/{path}").status_code == 403, (role, path)


def test_a_domain_token_cannot_create_domains(as_admin: Api) -> None:
    there = api_with_token(as_admin, authenticate(as_admin, token_auth(as_admin.token), {"domain": {"id": "default"}}))
    assert there.get(f"{V3}/users").status_code == 200
    assert there.post(f"{V3}/domains", json={"domain": {"name": "x"}}).status_code == 403
