"""Projects, their hierarchy and tags, and domains."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.identity_fixtures import V3, api_with_token, assign_role, authenticate, create, password_auth


def names(response: Any, key: str = "projects") -> list[str]:
    assert response.status_code == 200, response.text
    return [each["name"] for each in response.json[key]]


def test_a_new_project_is_returned_with_its_fields(as_admin: Api) -> None:
    created = create(as_admin, "project", name="one", description="first", tags=["a"], cost="7", enabled=False)
    assert created["description"] == "first"
    assert created["domain_id"] == created["parent_id"] == "default"
    assert created["is_domain"] is False
    assert created["enabled"] is False
    assert created["tags"] == ["a"]
    assert created["cost"] == "7"
    assert created["links"]["self"] == f"http://localhost{V3}/projects/{created['id']}"
    assert as_admin.get(f"{V3}/projects/{created['id']}").json["project"] == created
    assert len(created["id"]) == 32


def test_an_update_keeps_absent_fields(as_admin: Api) -> None:
    created = create(as_admin, "project", name="one", description="first", cost="7")
    response = as_admin.patch(f"{V3}/projects/{created['id']}", json={"project": {"name": "two", "owner": "me"}})
    assert response.json["project"] == {**created, "name": "two", "owner": "me"}
    assert as_admin.delete(f"{V3}/projects/{created['id']}").status_code == 204
    assert as_admin.get(f"{V3}/projects/{created['id']}").status_code == 404
    assert as_admin.delete(f"{V3}/projects/{created['id']}").status_code == 404


def test_project_names_are_unique_in_a_domain(as_admin: Api) -> None:
    create(as_admin, "project", name="one")
    other = create(as_admin, "domain")
    create(as_admin, "project", name="one", domain_id=other["id"])
    response = as_admin.post(f"{V3}/projects", json={"project": {"name": "one"}})
    assert response.status_code == 409
    assert response.json["error"]["title"] == "Conflict"
    two = create(as_admin, "project", name="two")
    assert as_admin.patch(f"{V3}/projects/{two['id']}", json={"project": {"name": "one"}}).status_code == 409
    assert as_admin.post(f"{V3}/domains", json={"domain": {"name": other["name"]}}).status_code == 409
    assert as_admin.post(f"{V3}/domains", json={"domain": {"name": "DEFAULT"}}).status_code == 409
    assert as_admin.patch(f"{V3}/projects/{two['id']}", json={"project": {"name": "ONE"}}).status_code == 409
    assert (
        as_admin.patch(f"{V3}/projects/{two['id']}", json={"project": {"name": two["name"].upper()}}).status_code == 200
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 65},
        {"name": None},
        {"name": 5},
        {"name": "x", "enabled": "yes"},
        {"name": "x", "enabled": None},
        {"name": "x", "description": 5},
        {"name": "x", "domain_id": "no such/domain"},
        {"name": "x", "is_domain": 1},
        {"name": "x", "tags": "a"},
        {"name": "x", "tags": ["a,b"]},
        {"name": "x", "tags": ["a/b"]},
        {"name": "x", "tags": ["a", "a"]},
        {"name": "x", "tags": [str(number) for number in range(81)]},
        {"name": "x", "is_domain": True, "parent_id": "default"},
    ],
)
def test_bad_input_is_a_400(as_admin: Api, fields: object) -> None:
    response = as_admin.post(f"{V3}/projects", json={"project": fields})
    assert response.status_code == 400, response.text


def test_lists_are_filtered_and_unknown_filters_ignored(as_admin: Api) -> None:
    create(as_admin, "project", name="Alpha-1", enabled=False)
    create(as_admin, "project", name="alpha-2")
    path = f"{V3}/projects"
    assert names(as_admin.get(f"{path}?name=alpha-2")) == ["alpha-2"]
    assert names(as_admin.get(f"{path}?name__contains=lpha")) == ["Alpha-1", "alpha-2"]
    assert names(as_admin.get(f"{path}?name__startswith=alpha")) == ["alpha-2"]
    assert names(as_admin.get(f"{path}?name__istartswith=ALPHA")) == ["Alpha-1", "alpha-2"]
    assert names(as_admin.get(f"{path}?name__iendswith=A-1")) == ["Alpha-1"]
    assert names(as_admin.get(f"{path}?name__endswith=A-1")) == []
    assert names(as_admin.get(f"{path}?name__contains=%25")) == []
    assert names(as_admin.get(f"{path}?enabled=false&nonsense=1")) == ["Alpha-1"]
    assert "Alpha-1" not in names(as_admin.get(f"{path}?enabled"))
    assert names(as_admin.get(f"{path}?domain_id=nowhere")) == []
    assert "Default" in names(as_admin.get(f"{path}?is_domain=true"))


def test_lists_are_paginated_by_limit_and_marker(as_admin: Api) -> None:
    for number in range(5):
        create(as_admin, "project", name=f"p{number}")
    found: list[str] = []
    path: str | None = f"{V3}/projects?limit=2&name__startswith=p"
    while path:
        response = as_admin.get(path)
        found += names(response)
        following = response.json["links"]["next"]
        path = following.removeprefix("http://localhost") if following else None
    assert found == [f"p{number}" for number in range(5)]
    assert as_admin.get(f"{V3}/projects?limit=x").status_code == 400
    assert as_admin.get(f"{V3}/projects?marker=nowhere").status_code == 404


def test_projects_form_a_tree(as_admin: Api) -> None:
    top = create(as_admin, "project", name="top")
    middle = create(as_admin, "project", name="middle", parent_id=top["id"])
    leaf = create(as_admin, "project", name="leaf", parent_id=middle["id"])
    assert middle["domain_id"] == "default"
    for project in (top, middle, leaf):
        assign_role(as_admin, f"projects/{project['id']}/users/{as_admin.user_id}", "reader")
    path = f"{V3}/projects/{middle['id']}"
    shown = as_admin.get(f"{path}?parents_as_list&subtree_as_list").json["project"]
    assert [each["project"]["name"] for each in shown["parents"]] == ["top"]
    assert [each["project"]["name"] for each in shown["subtree"]] == ["leaf"]
    shown = as_admin.get(f"{path}?parents_as_ids&subtree_as_ids").json["project"]
    assert shown["parents"] == {top["id"]: {"default": None}}
    assert shown["subtree"] == {leaf["id"]: None}
    assert names(as_admin.get(f"{V3}/projects?parent_id={top['id']}")) == ["middle"]
    assert as_admin.delete(path).status_code == 403
    disable = {"project": {"enabled": False}}
    assert as_admin.patch(path, json=disable).status_code == 403
    assert as_admin.patch(f"{V3}/projects/{leaf['id']}", json=disable).status_code == 200
    assert as_admin.patch(path, json=disable).status_code == 200
    enable = {"project": {"enabled": True}}
    assert as_admin.patch(f"{V3}/projects/{leaf['id']}", json=enable).status_code == 403


def test_the_project_tree_has_at_most_five_levels(as_admin: Api) -> None:
    parent = "default"
    for _ in range(5):
        parent = create(as_admin, "project", parent_id=parent)["id"]
    response = as_admin.post(f"{V3}/projects", json={"project": {"name": "x", "parent_id": parent}})
    assert response.status_code == 403


def test_a_project_cannot_be_moved(as_admin: Api) -> None:
    project = create(as_admin, "project")
    other = create(as_admin, "domain")
    for change in ({"domain_id": other["id"]}, {"parent_id": as_admin.project_id}, {"is_domain": True}):
        response = as_admin.patch(f"{V3}/projects/{project['id']}", json={"project": change})
        assert response.status_code in (400, 403)
    body = {"project": {"name": "x", "parent_id": project["id"], "domain_id": other["id"]}}
    assert as_admin.post(f"{V3}/projects", json=body).status_code == 400
    same = {"project": {"domain_id": "default", "description": "same"}}
    assert as_admin.patch(f"{V3}/projects/{project['id']}", json=same).status_code == 200


def test_tags_are_set_checked_and_filtered_by(as_admin: Api) -> None:
    one = create(as_admin, "project", name="one", tags=["a", "b"])
    create(as_admin, "project", name="two", tags=["b", "c"])
    path = f"{V3}/projects"
    assert names(as_admin.get(f"{path}?tags=a,b")) == ["one"]
    assert names(as_admin.get(f"{path}?tags-any=a,c")) == ["one", "two"]
    assert {"one", "two"} & set(names(as_admin.get(f"{path}?not-tags=a,b"))) == {"two"}
    assert {"one", "two"} & set(names(as_admin.get(f"{path}?not-tags-any=a,c"))) == set()
    tags = f"{path}/{one['id']}/tags"
    assert as_admin.get(tags).json["tags"] == ["a", "b"]
    assert as_admin.get(f"{tags}/a").status_code == 204
    assert as_admin.get(f"{tags}/z").status_code == 404
    assert as_admin.put(f"{tags}/z").status_code == 201
    assert as_admin.put(f"{tags}/z").status_code == 201
    assert as_admin.put(f"{tags}/a,b").status_code == 400
    assert as_admin.delete(f"{tags}/a").status_code == 204
    assert as_admin.delete(f"{tags}/a").status_code == 404
    assert as_admin.get(tags).json["tags"] == ["b", "z"]
    assert as_admin.put(tags, json={"tags": ["x"]}).json["tags"] == ["x"]
    assert as_admin.put(tags, json={"tags": "x"}).status_code == 400
    assert as_admin.delete(tags).status_code == 204
    assert as_admin.get(tags).json["tags"] == []


def test_a_member_sees_its_own_project_and_no_other(as_member: Api, as_admin: Api) -> None:
    assert as_member.get(f"{V3}/projects/{as_member.project_id}").status_code == 200
    for path in (f"projects/{as_admin.project_id}", "projects/" + "a" * 32, "projects", "domains", "users", "roles"):
        response = as_member.get(f"{V3}/{path}")
        assert response.status_code == 403
        assert "You are not authorized to perform the requested action" in response.json["error"]["message"]
    assert names(as_member.get(f"{V3}/users/{as_member.user_id}/projects")) == ["demo"]
    assert as_member.get(f"{V3}/users/{as_admin.user_id}/projects").status_code == 403
    assert as_member.get(f"{V3}/domains/default").status_code == 200
    assert as_member.post(f"{V3}/projects", json={"project": {"name": "x"}}).status_code == 403
    assert as_member.delete(f"{V3}/projects/{as_member.project_id}").status_code == 403


def test_only_disabled_domains_are_deleted_with_their_content(as_admin: Api, client: Api) -> None:
    domain = create(as_admin, "domain", name="acme", description="first")
    assert domain["enabled"] is True
    project = create(as_admin, "project", domain_id=domain["id"])
    below = create(as_admin, "project", parent_id=project["id"])
    user = create(as_admin, "user", domain_id=domain["id"], password="letmein", default_project_id=below["id"])
    group = create(as_admin, "group", domain_id=domain["id"])
    role = create(as_admin, "role", domain_id=domain["id"])
    as_admin.put(f"{V3}/groups/{group['id']}/users/{user['id']}")
    assign_role(as_admin, f"projects/{below['id']}/users/{user['id']}", "member")
    assign_role(as_admin, f"domains/{domain['id']}/groups/{group['id']}", "reader")
    there = api_with_token(client, authenticate(client, password_auth(user["id"], "letmein")))
    assert there.project_id == below["id"]
    path = f"{V3}/domains/{domain['id']}"
    assert as_admin.delete(path).status_code == 403
    changed = as_admin.patch(path, json={"domain": {"enabled": False, "description": "second"}})
    assert changed.json["domain"] == {**domain, "enabled": False, "description": "second"}
    assert authenticate(client, password_auth(user["id"], "letmein")).status_code == 401
    assert as_admin.delete(path).status_code == 204
    for kind, found in (("project", project), ("project", below), ("user", user), ("group", group), ("role", role)):
        assert as_admin.get(f"{V3}/{kind}s/{found['id']}").status_code == 404
    assert as_admin.get(path).status_code == 404
    assert there.get(f"{V3}/auth/projects").status_code == 401


def test_immutable_resources_cannot_be_changed(as_admin: Api) -> None:
    for kind in ("project", "domain", "role"):
        created = create(as_admin, kind, options={"immutable": True})
        path = f"{V3}/{kind}s/{created['id']}"
        assert as_admin.patch(path, json={kind: {"description": "x"}}).status_code == 403
        assert (
            as_admin.patch(path, json={kind: {"description": "x", "options": {"immutable": None}}}).status_code == 403
        )
        if kind != "domain":
            assert as_admin.delete(path).status_code == 403
        assert as_admin.patch(path, json={kind: {"options": {"immutable": False}}}).status_code == 200
        assert as_admin.patch(path, json={kind: {"description": "x"}}).status_code == 200


def test_is_domain_makes_a_domain(as_admin: Api) -> None:
    created = create(as_admin, "project", name="acme", is_domain=True)
    assert created["domain_id"] is None
    assert as_admin.get(f"{V3}/domains/{created['id']}").json["domain"]["name"] == "acme"
    assert as_admin.get(f"{V3}/domains/{as_admin.project_id}").status_code == 404
