"""Walks every route of every API: a rule is declared, no token gives 401, and faults have the service's own shape."""

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from app.factory import RULES
from tests.api.conftest import Api

SHAPES = {
    "identity": lambda body: {"code", "title", "message"} <= set(body["error"]),
    "image": lambda body: {"code", "title", "message"} <= set(body),
    "compute": lambda body: {"code", "message"} <= set(next(iter(body.values()))),
    "volume": lambda body: {"code", "message"} <= set(next(iter(body.values()))),
    "network": lambda body: {"type", "message", "detail"} <= set(body["NeutronError"]),
}


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(method, path with made-up ids, endpoint) of every route."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "11111111222233334444555555555555", rule.rule)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            yield method, path, rule.endpoint


def test_every_route_declares_who_may(app: Flask) -> None:
    without = []
    for method, path, endpoint in routes(app):
        view = app.view_functions[endpoint]
        if not getattr(view, "public", False) and getattr(view, "rule", None) not in RULES:
            without.append(f"{method} {path}")
    assert without == []


def test_every_route_that_is_not_public_wants_a_token(app: Flask, client: Api) -> None:
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


def test_no_route_fails_on_made_up_ids_or_an_empty_body(app: Flask, as_admin: Api) -> None:
    """Whatever is asked of something that is not there: a 4xx in the service's shape, or an answer; never a 500."""
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


@pytest.mark.parametrize("service", sorted(SHAPES))
def test_an_unknown_path_is_a_404_in_the_services_shape(as_member: Api, service: str) -> None:
    answer = as_member.get(f"/{service}/v9/nowhere")
    assert answer.status_code == 404
    assert SHAPES[service](answer.json)
