"""Roles, implied roles and role assignments."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.identity_fixtures import V3, assign_role, authenticate, create, find_role_id, password_auth


def test_the_seeded_roles_imply_each_other(as_admin: Api) -> None:
    names = {role["name"] for role in as_admin.get(f"{V3}/roles").json["roles"]}
    assert names == {"admin", "manager", "member", "reader", "service"}
    found = as_admin.get(f"{V3}/role_inferences").json["role_inferences"]
    pairs = {(each["prior_role"]["name"], implied["name"]) for each in found for implied in each["implies"]}
    assert pairs == {("admin", "manager"), ("manager", "member"), ("member", "reader")}


def test_roles_are_created_updated_and_deleted(as_admin: Api) -> None:
    created = create(as_admin, "role", name="auditor", description="x", color="red")
    path = f"{V3}/roles/{created['id']}"
    assert created["domain_id"] is None
    assert as_admin.get(path).json["role"] == created
    assert as_admin.get(f"{V3}/roles?name=auditor").json["roles"] == [created]
    changed = as_admin.patch(path, json={"role": {"name": "inspector"}}).json["role"]
    assert changed == {**created, "name": "inspector"}
    assert as_admin.post(f"{V3}/roles", json={"role": {"name": "inspector"}}).status_code == 409
    assert as_admin.delete(path).status_code == 204
    assert as_admin.get(path).status_code == 404


@pytest.mark.parametrize("fields", [{}, {"name": ""}, {"name": "x" * 256}, {"name": 5}, {"name": "x", "options": 1}])
def test_bad_input_is_a_400(as_admin: Api, fields: object) -> None:
    assert as_admin.post(f"{V3}/roles", json={"role": fields}).status_code == 400


def test_implied_roles_are_added_and_removed(as_admin: Api) -> None:
    boss, worker = create(as_admin, "role"), create(as_admin, "role")
    path = f"{V3}/roles/{boss['id']}/implies"
    assert as_admin.get(f"{path}/{worker['id']}").status_code == 404
    for _ in range(2):
        created = as_admin.put(f"{path}/{worker['id']}")
        assert created.status_code == 201
    assert created.json["role_inference"]["implies"]["id"] == worker["id"]
    assert as_admin.get(f"{path}/{worker['id']}").json["role_inference"] == created.json["role_inference"]
    assert as_admin.request("HEAD", f"{path}/{worker['id']}").status_code == 204
    listed = as_admin.get(path).json["role_inference"]
    assert [role["id"] for role in listed["implies"]] == [worker["id"]]
    assert as_admin.put(f"{path}/{find_role_id(as_admin, 'admin')}").status_code == 403
    assert as_admin.put(f"{V3}/roles/{worker['id']}/implies/{boss['id']}").status_code == 201
    assert as_admin.delete(f"{path}/{worker['id']}").status_code == 204
    assert as_admin.delete(f"{path}/{worker['id']}").status_code == 404


def test_a_domain_role_can_be_assigned_on_any_domain(as_admin: Api) -> None:
    role = create(as_admin, "role", domain_id=create(as_admin, "domain")["id"])
    user = create(as_admin, "user")
    path = f"{V3}/domains/default/users/{user['id']}/roles"
    assert as_admin.put(f"{path}/{role['id']}").status_code == 204
    assert [each["id"] for each in as_admin.get(path).json["roles"]] == [role["id"]]


def test_a_domain_role_only_provides_implied_roles(as_admin: Api, client: Api) -> None:
    domain = create(as_admin, "domain")
    role = create(as_admin, "role", domain_id=domain["id"])
    project = create(as_admin, "project", domain_id=domain["id"])
    user = create(as_admin, "user", password="letmein")
    assert [each["id"] for each in as_admin.get(f"{V3}/roles?domain_id={domain['id']}").json["roles"]] == [role["id"]]
    assert role["id"] not in {each["id"] for each in as_admin.get(f"{V3}/roles").json["roles"]}
    elsewhere = f"{V3}/projects/{as_admin.project_id}/users/{user['id']}/roles/{role['id']}"
    assert as_admin.put(elsewhere).status_code == 403
    assert as_admin.put(f"{V3}/system/users/{user['id']}/roles/{role['id']}").status_code == 403
    assert as_admin.put(f"{V3}/projects/{project['id']}/users/{user['id']}/roles/{role['id']}").status_code == 204
    scope = {"project": {"id": project["id"]}}
    assert authenticate(client, password_auth(user["id"], "letmein"), scope).status_code == 401
    assert as_admin.put(f"{V3}/roles/{role['id']}/implies/{find_role_id(as_admin, 'reader')}").status_code == 201
    token = authenticate(client, password_auth(user["id"], "letmein"), scope).json["token"]
    assert [each["name"] for each in token["roles"]] == ["reader"]
    back = f"{V3}/roles/{find_role_id(as_admin, 'reader')}/implies/{role['id']}"
    assert as_admin.put(back).status_code == 403


GRANT_PATHS = [
    "projects/{project}/users/{user}",
    "projects/{project}/groups/{group}",
    "domains/{domain}/users/{user}",
    "domains/{domain}/groups/{group}",
    "system/users/{user}",
    "system/groups/{group}",
    "OS-INHERIT/projects/{project}/users/{user}",
    "OS-INHERIT/projects/{project}/groups/{group}",
    "OS-INHERIT/domains/{domain}/users/{user}",
    "OS-INHERIT/domains/{domain}/groups/{group}",
]


@pytest.mark.parametrize("grant_path", GRANT_PATHS)
def test_roles_are_assigned_and_revoked_on_every_target(as_admin: Api, grant_path: str) -> None:
    ids = {
        "project": create(as_admin, "project")["id"],
        "domain": create(as_admin, "domain")["id"],
        "user": create(as_admin, "user")["id"],
        "group": create(as_admin, "group")["id"],
    }
    suffix = "/inherited_to_projects" if "INHERIT" in grant_path else ""
    role = find_role_id(as_admin, "member")
    roles = f"{V3}/{grant_path.format(**ids)}/roles"
    one = f"{roles}/{role}{suffix}"
    assert as_admin.get(one).status_code == 404
    assert as_admin.delete(one).status_code == 404
    for _ in range(2):
        assert as_admin.put(one).status_code == 204
    assert as_admin.get(one).status_code == 204
    assert as_admin.request("HEAD", one).status_code == 204
    assert [each["name"] for each in as_admin.get(f"{roles}{suffix}").json["roles"]] == ["member"]
    assert as_admin.delete(one).status_code == 204
    assert as_admin.get(f"{roles}{suffix}").json["roles"] == []
    for name in ids:
        if "{" + name + "}" in grant_path:
            wrong = f"{V3}/{grant_path.format(**{**ids, name: 'd' * 32})}/roles"
            assert as_admin.put(f"{wrong}/{role}{suffix}").status_code == 404
            assert as_admin.get(f"{wrong}{suffix}").status_code == 404
    assert as_admin.put(f"{roles}/{'e' * 32}{suffix}").status_code == 404


def assignments(api: Api, query: str = "") -> list[dict[str, Any]]:
    response = api.get(f"{V3}/role_assignments{query}")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json["role_assignments"]
    return found


def test_direct_assignments_are_listed(as_admin: Api) -> None:
    project, user = create(as_admin, "project"), create(as_admin, "user")
    assign_role(as_admin, f"projects/{project['id']}/users/{user['id']}", "member")
    (found,) = assignments(as_admin, f"?user.id={user['id']}")
    member = find_role_id(as_admin, "member")
    assert found == {
        "role": {"id": member},
        "user": {"id": user["id"]},
        "scope": {"project": {"id": project["id"]}},
        "links": {"assignment": f"http://localhost{V3}/projects/{project['id']}/users/{user['id']}/roles/{member}"},
    }
    assert assignments(as_admin, f"?scope.project.id={project['id']}&role.id={member}") == [found]
    assert found in assignments(as_admin)
    (named,) = assignments(as_admin, f"?user.id={user['id']}&include_names")
    default = {"id": "default", "name": "Default"}
    assert named["role"] == {"id": member, "name": "member"}
    assert named["user"] == {"id": user["id"], "name": user["name"], "domain": default}
    assert named["scope"] == {"project": {"id": project["id"], "name": project["name"], "domain": default}}


def test_assignments_on_domains_and_the_system_are_listed(as_admin: Api) -> None:
    system = assignments(as_admin, "?scope.system=all&include_names=True")
    assert [(each["user"]["name"], each["scope"]) for each in system] == [("admin", {"system": {"all": True}})]
    domain = assignments(as_admin, "?scope.domain.id=default&include_names=True")
    assert [(each["user"]["name"], each["scope"]) for each in domain] == [
        ("admin", {"domain": {"id": "default", "name": "Default"}})
    ]


def test_effective_assignments_are_expanded(as_admin: Api) -> None:
    domain = create(as_admin, "domain")
    project = create(as_admin, "project", domain_id=domain["id"])
    user, group = create(as_admin, "user"), create(as_admin, "group")
    as_admin.put(f"{V3}/groups/{group['id']}/users/{user['id']}")
    inherit = f"{V3}/OS-INHERIT/domains/{domain['id']}/groups/{group['id']}/roles/{find_role_id(as_admin, 'member')}"
    assert as_admin.put(f"{inherit}/inherited_to_projects").status_code == 204
    given = assignments(as_admin, f"?group.id={group['id']}")
    assert given[0]["scope"] == {"domain": {"id": domain["id"]}, "OS-INHERIT:inherited_to": "projects"}
    assert assignments(as_admin, "?scope.OS-INHERIT:inherited_to=projects") == given
    found = assignments(as_admin, f"?effective&user.id={user['id']}&include_names=1")
    assert {(each["role"]["name"], each["scope"]["project"]["id"]) for each in found} == {
        ("member", project["id"]),
        ("reader", project["id"]),
    }
    (implied,) = (each for each in found if each["role"]["name"] == "reader")
    assert implied["links"]["prior_role"].endswith(find_role_id(as_admin, "member"))
    assert implied["links"]["membership"].endswith(f"/groups/{group['id']}/users/{user['id']}")
    assert f"/OS-INHERIT/domains/{domain['id']}/groups/{group['id']}/" in implied["links"]["assignment"]


def test_the_subtree_of_a_project_is_included_on_request(as_admin: Api) -> None:
    top = create(as_admin, "project")
    below = create(as_admin, "project", parent_id=top["id"])
    user = create(as_admin, "user")
    assign_role(as_admin, f"projects/{below['id']}/users/{user['id']}", "member")
    assert assignments(as_admin, f"?scope.project.id={top['id']}") == []
    (found,) = assignments(as_admin, f"?scope.project.id={top['id']}&include_subtree=true")
    assert found["scope"]["project"]["id"] == below["id"]


@pytest.mark.parametrize(
    "query",
    [
        "?user.id=a&group.id=b",
        "?scope.project.id=a&scope.domain.id=b",
        "?effective&group.id=a",
        "?effective&scope.OS-INHERIT:inherited_to=projects",
    ],
)
def test_contradictory_filters_are_a_400(as_admin: Api, query: str) -> None:
    assert as_admin.get(f"{V3}/role_assignments{query}").status_code == 400


def test_an_admin_may_revoke_its_last_role(as_admin: Api) -> None:
    admin = find_role_id(as_admin, "admin")
    path = f"{V3}/projects/{as_admin.project_id}/users/{as_admin.user_id}/roles/{admin}"
    assert as_admin.delete(path).status_code == 204
    assert as_admin.get(f"{V3}/users").status_code == 401
