"""Accepted and rejected Host headers."""

from dataclasses import replace

import pytest

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import create_app

PUBLIC = {"public_url": "https://cloud.example.org:8774/base"}
LISTED = {"allowed_hosts": "one.example, Two.Example"}


@pytest.mark.parametrize(
    ("changes", "host", "status"),
    [
        ({}, "anything.example", 200),
        (PUBLIC, "cloud.example.org", 200),
        (PUBLIC, "CLOUD.example.org.:443", 200),
        (PUBLIC, "evil.example", 400),
        (PUBLIC, "cloud.example.org.evil.example", 400),
        (PUBLIC, "localhost:8774", 200),
        (PUBLIC, "[2001:db8::1]:8774", 200),
        (PUBLIC, "192.0.2.1", 200),
        (LISTED, "two.example:80", 200),
        (LISTED, "192.0.2.1", 400),
        (LISTED, "[::1]:8774", 200),
        (LISTED, "evil.example", 400),
        (PUBLIC | LISTED, "one.example", 200),
        (PUBLIC | LISTED, "evil.example", 400),
    ],
)
def test_known_host_headers_are_accepted(
    settings: Settings, database: Database, clock: ManualClock, changes: dict[str, str], host: str, status: int
) -> None:
    app = create_app(replace(settings, **changes), database=database, clock=clock)  # type: ignore[arg-type]
    answer = app.test_client().get("/identity/v3", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json is not None
        assert answer.json["error"]["code"] == 400
        assert answer.headers["X-Openstack-Request-Id"]
