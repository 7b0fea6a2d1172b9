"""Overrides of policy rules in policy.yaml."""

from collections.abc import Callable

import pytest
import yaml

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import RULES, create_app
from app.web.policy import Policy
from tests.api.conftest import Api, Template
from tests.api.identity_fixtures import V3, api_with_token, authenticate

CloudFactory = Callable[[dict[str, str]], Api]


@pytest.fixture
def member_with(settings: Settings, database: Database, clock: ManualClock, template: Template) -> CloudFactory:
    """Factory: `member_with({"identity:list_users": "@"})` returns the demo user of a cloud with these overrides."""

    def created(overrides: dict[str, str]) -> Api:
        (settings.state / "policy.yaml").write_text(yaml.safe_dump(overrides))
        client = Api(create_app(settings, database=database, clock=clock).test_client())
        user = {"name": "demo", "domain": {"id": "default"}, "password": template.passwords["demo"]}
        return api_with_token(client, authenticate(client, {"methods": ["password"], "password": {"user": user}}))

    return created


def test_overrides_relax_and_restrict_rules(member_with: CloudFactory) -> None:
    member = member_with({"identity:list_users": "role:member", "identity:get_region": "role:admin"})
    assert member.get(f"{V3}/users").status_code == 200
    assert member.get(f"{V3}/regions").status_code == 200
    assert member.get(f"{V3}/regions/RegionOne").status_code == 403


def test_overrides_may_reference_rules_of_any_service(member_with: CloudFactory) -> None:
    member = member_with({"identity:list_roles": "rule:identity:list_regions", "get_network": "!"})
    assert member.get(f"{V3}/roles").status_code == 200
    assert member.get("/network/v2.0/networks").status_code == 403


def test_overrides_may_use_target_attributes(member_with: CloudFactory) -> None:
    member = member_with(
        {"identity:get_user": "domain_id:%(target.user.domain_id)s or 'default':%(target.user.domain_id)s"}
    )
    assert member.get(f"{V3}/users/{member.user_id}").status_code == 200
    assert member.get(f"{V3}/users/{'a' * 32}").status_code == 403


def test_overrides_of_unknown_rules_are_rejected(member_with: CloudFactory) -> None:
    with pytest.raises(ValueError, match="identity:fly"):
        member_with({"identity:fly": "@"})


def test_every_default_rule_parses() -> None:
    policy = Policy(RULES)
    unreadable = [name for name, check in policy.rules.items() if str(check) == "!" and RULES[name] != "!"]
    assert unreadable == []
