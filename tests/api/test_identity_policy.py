"""Operators change who may do what by policy.yaml."""

from collections.abc import Callable

import pytest
import yaml

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import RULES, create_app
from app.web.policy import Policy
from tests.api.conftest import Api, Template
from tests.api.identity_fixtures import V3, authenticate, bearer

Cloud = Callable[[dict[str, str]], Api]


@pytest.fixture
def member_with(settings: Settings, database: Database, clock: ManualClock, template: Template) -> Cloud:
    """`member_with({"identity:list_users": "@"})`: the demo user of a cloud with these overrides."""

    def made(overrides: dict[str, str]) -> Api:
        (settings.state / "policy.yaml").write_text(yaml.safe_dump(overrides))
        client = Api(create_app(settings, database=database, clock=clock).test_client())
        user = {"name": "demo", "domain": {"id": "default"}, "password": template.passwords["demo"]}
        return bearer(client, authenticate(client, {"methods": ["password"], "password": {"user": user}}))

    return made


def test_a_rule_can_be_opened_and_closed(member_with: Cloud) -> None:
    member = member_with({"identity:list_users": "role:member", "identity:get_region": "role:admin"})
    assert member.get(f"{V3}/users").status_code == 200
    assert member.get(f"{V3}/regions").status_code == 200
    assert member.get(f"{V3}/regions/RegionOne").status_code == 403


def test_rules_of_other_services_and_references_to_rules_work(member_with: Cloud) -> None:
    member = member_with({"identity:list_roles": "rule:identity:list_regions", "get_network": "!"})
    assert member.get(f"{V3}/roles").status_code == 200
    assert member.get("/network/v2.0/networks").status_code == 403


def test_a_rule_may_look_at_the_object(member_with: Cloud) -> None:
    member = member_with(
        {"identity:get_user": "domain_id:%(target.user.domain_id)s or 'default':%(target.user.domain_id)s"}
    )
    assert member.get(f"{V3}/users/{member.user_id}").status_code == 200
    assert member.get(f"{V3}/users/{'a' * 32}").status_code == 403


def test_an_override_of_a_rule_that_does_not_exist_is_told(member_with: Cloud) -> None:
    with pytest.raises(ValueError, match="identity:fly"):
        member_with({"identity:fly": "@"})


def test_every_default_is_a_rule_that_can_be_read() -> None:
    policy = Policy(RULES)
    unreadable = [name for name, check in policy.rules.items() if str(check) == "!" and RULES[name] != "!"]
    assert unreadable == []
