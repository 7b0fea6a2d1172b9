"""All routes of all APIs: a policy rule is declared, a missing token gives 401, errors have the service's format."""

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from app.factory import RULES
from tests.api.conftest import Api, Host
from tests.api.identity_fixtures import api_with_token, assign_role, authenticate, create, password_auth

SHAPES = {
    "identity": lambda body: {"code", "title", "message"} <= set(body["error"]),
    "image": lambda body: {"code", "title", "message"} <= set(body),
    "compute": lambda body: {"code", "message"} <= set(next(iter(body.values()))),
    "volume": lambda body: {"code", "message"} <= set(next(iter(body.values()))),
    "network": lambda body: {"type", "message", "detail"} <= set(body["NeutronError"]),
}


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Yield (method, path with random ids, endpoint) of every route."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "11111111222233334444555555555555", rule.rule)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            yield method, path, rule.endpoint


def test_every_route_declares_a_policy_rule(app: Flask) -> None:
    without = []
    for method, path, endpoint in routes(app):
        view = app.view_functions[endpoint]
        if not getattr(view, "public", False) and getattr(view, "rule", None) not in RULES:
            without.append(f"{method} {path}")
    assert without == []


def test_every_route_that_is_not_public_requires_a_token(app: Flask, client: Api) -> None:
    wrong = []
    for method, path, endpoint in routes(app):
        if getattr(app.view_functions[endpoint], "public", False):
            continue
        for headers in ({}, {"X-Auth-Token": "nonsense"}):
            answer = client.request(method, path, headers=headers)
            body = answer.get_json(silent=True) or {}
            shaped = SHAPES[path.split("/")[1]](body) if body else False
            if answer.status_code != 401 or "WWW-Authenticate" not in answer.headers or not shaped:
                wrong.append((method, path, answer.status_code))
    assert wrong == []


def test_no_route_fails_on_unknown_ids_or_an_empty_body(app: Flask, as_admin: Api) -> None:
    """Requests for missing resources return a 4xx error in the service's format or a response, never a 500."""
    wrong = []
    for method, path, _endpoint in routes(app):
        if path.startswith("/identity/v3/auth/tokens"):
            continue
        for body in (None, {}, {"nonsense": 1}, []):
            answer = as_admin.request(method, path, **({} if method in ("GET", "DELETE") else {"json": body}))
            parsed = answer.get_json(silent=True)
            if answer.status_code >= 500 and answer.status_code != 501:
                wrong.append((method, path, body, answer.status_code))
            elif answer.status_code >= 400 and parsed is not None and not SHAPES[path.split("/")[1]](parsed):
                wrong.append((method, path, body, answer.text[:100]))
    assert wrong == []


@pytest.fixture(params=["domain", "system", "unscoped"])
def without_project(as_admin: Api, client: Api, request: pytest.FixtureRequest) -> Api:
    """A client with a domain-scoped, a system-scoped or an unscoped token."""
    user = create(as_admin, "user", password="letmein")
    scopes = {"domain": {"domain": {"id": "default"}}, "system": {"system": {"all": True}}, "unscoped": None}
    place = {"domain": "domains/default", "system": "system"}.get(request.param)
    if place:
        assign_role(as_admin, f"{place}/users/{user['id']}", "member")
    return api_with_token(client, authenticate(client, password_auth(user["id"], "letmein"), scopes[request.param]))


def test_a_token_without_a_project_reads_and_writes_nothing(app: Flask, without_project: Api) -> None:
    """Outside of identity every route returns 403, or 410 and 501 for removed and unsupported APIs.

    Volume rejects another project in the path with 400 before it checks policies.
    """
    wrong = []
    for method, path, endpoint in routes(app):
        service = path.split("/")[1]
        if service == "identity" or getattr(app.view_functions[endpoint], "public", False):
            continue
        for body in (None, {}, {"nonsense": 1}):
            kwargs = {} if method in ("GET", "DELETE") else {"json": body}
            answer = without_project.request(method, path, **kwargs)
            refusals = (400, 403) if path.startswith("/volume/v3/1") else (403, 410, 501)
            if answer.status_code not in refusals or not SHAPES[service](answer.get_json(silent=True)):
                wrong.append((method, path, body, answer.status_code))
    assert wrong == []


def test_projectless_tokens_share_no_servers_and_no_groups(
    as_member: Api, image: str, without_project: Api, host: Host
) -> None:
    server = {"server": {"name": "x", "imageRef": image, "flavorRef": "1"}}
    group = {"server_group": {"name": "x", "policies": ["affinity"]}}
    for path, body in (("servers", server), ("os-server-groups", group)):
        assert without_project.post(f"/compute/v2.1/{path}", json=body).status_code == 403
        assert without_project.get(f"/compute/v2.1/{path}").status_code == 403


def test_an_admin_of_the_system_manages_but_owns_nothing(
    as_admin: Api, client: Api, make_server: Callable[..., str]
) -> None:
    server_id = make_server()
    user = create(as_admin, "user", password="letmein")
    assign_role(as_admin, f"system/users/{user['id']}", "admin")
    login = authenticate(client, password_auth(user["id"], "letmein"), {"system": {"all": True}})
    operator = api_with_token(client, login)
    found = operator.get("/compute/v2.1/servers?all_tenants=1").json["servers"]
    assert [server["id"] for server in found] == [server_id]
    assert operator.get("/compute/v2.1/os-hypervisors").status_code == 200
    assert operator.post(f"/compute/v2.1/servers/{server_id}/action", json={"os-stop": None}).status_code == 202
    own = {
        "/compute/v2.1/servers": {"server": {"name": "x", "imageRef": server_id, "flavorRef": "1"}},
        "/compute/v2.1/os-server-groups": {"server_group": {"name": "x", "policies": ["affinity"]}},
        "/network/v2.0/networks": {"network": {"name": "x"}},
        "/image/v2/images": {"name": "x", "disk_format": "raw", "container_format": "bare"},
    }
    assert {path: operator.post(path, json=body).status_code for path, body in own.items()} == dict.fromkeys(own, 403)


@pytest.mark.parametrize("service", sorted(SHAPES))
def test_an_unknown_path_is_a_404_in_the_services_shape(as_member: Api, service: str) -> None:
    answer = as_member.get(f"/{service}/v9/nowhere")
    assert answer.status_code == 404
    assert SHAPES[service](answer.json)
