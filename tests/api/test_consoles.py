"""Console URLs: authorization, errors, and lifetime of tokens."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from flask import Flask
from sqlalchemy import select, update

from app.console_transport import endpoint
from app.core.clock import ManualClock
from app.core.errors import NotFound
from app.core.settings import Settings
from app.db.database import Database
from app.security.secret_cipher import SecretCipher
from compute_api.access import console_tokens, host_credentials
from compute_api.models import ConsoleToken, Server
from compute_api.routes.base.context import HOST_CLIENT
from tests.api.conftest import Api, Host
from tests.api.identity_fixtures import V3, create_user_api, revoke_role

SERVERS = "/compute/v2.1/servers"
TOKENS = "/compute/v2.1/os-console-auth-tokens"
MakeServer = Callable[..., str]
NOVNC = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
SERIAL = {"remote_console": {"protocol": "serial", "type": "serial"}}


@pytest.fixture(autouse=True)
def proxy(settings: Settings) -> None:
    """Settings with an enabled console proxy."""
    endpoint.write_port(settings, 6080)


def set_(app: Flask, **settings: str) -> None:
    parts = app.extensions["sixstack"]
    app.extensions["sixstack"] = replace(parts, settings=replace(parts.settings, **settings))


def token_of(url: str) -> str:
    query = parse_qs(urlsplit(url).query)
    return query["token"][0] if "token" in query else parse_qs(query["path"][0].lstrip("?"))["token"][0]


@pytest.mark.parametrize("version", ["2.6", "2.8", "2.31", "2.96"])
def test_a_screen_and_a_serial_console_have_urls(
    as_member: Api, make_server: MakeServer, host: Host, version: str
) -> None:
    path = f"{SERVERS}/{make_server()}/remote-consoles"
    shown = as_member.at(version).post(path, json=NOVNC).json["remote_console"]
    assert (shown["protocol"], shown["type"]) == ("vnc", "novnc")
    assert shown["url"].startswith("http://localhost:6080/vnc_lite.html?path=%3Ftoken%3D")
    shown = as_member.at(version).post(path, json=SERIAL).json["remote_console"]
    assert shown["url"].startswith("ws://localhost:6080/?token=")


def test_console_actions_serve_old_clients(as_member: Api, make_server: MakeServer, host: Host) -> None:
    path = f"{SERVERS}/{make_server()}/action"
    shown = as_member.post(path, json={"os-getVNCConsole": {"type": "novnc"}}).json["console"]
    assert shown["type"] == "novnc"
    assert unquote(shown["url"]).startswith("http://localhost:6080/vnc_lite.html?path=?token=")
    shown = as_member.post(path, json={"os-getSerialConsole": {"type": "serial"}}).json["console"]
    assert shown["url"].startswith("ws://localhost:6080/?token=")
    refused = as_member.post(path, json={"os-getSPICEConsole": {"type": "spice-html5"}})
    assert (refused.status_code, refused.json["badRequest"]["message"]) == (
        400,
        "Unavailable console type spice-html5.",
    )
    refused = as_member.post(path, json={"os-getRDPConsole": {"type": "rdp-html5"}})
    assert refused.json["badRequest"]["message"] == "Unavailable console type rdp-html5."


@pytest.mark.parametrize(
    "action", ["os-getVNCConsole", "os-getSPICEConsole", "os-getRDPConsole", "os-getSerialConsole"]
)
def test_console_actions_end_where_remote_consoles_begin(
    as_member: Api, make_server: MakeServer, host: Host, action: str
) -> None:
    body = {action: {"type": "novnc"}}
    answer = as_member.at("2.6").post(f"{SERVERS}/{make_server()}/action", json=body)
    assert (answer.status_code, answer.json["itemNotFound"]["message"]) == (404, "The resource could not be found.")


def test_url_has_the_path_of_the_endpoint(as_member: Api, make_server: MakeServer, host: Host, app: Flask) -> None:
    set_(app, console_url="https://cloud.example/screens/")
    shown = as_member.at("2.6").post(f"{SERVERS}/{make_server()}/remote-consoles", json=NOVNC).json["remote_console"]
    assert shown["url"].startswith("https://cloud.example/screens/vnc_lite.html?path=screens%2F%3Ftoken%3D")


@pytest.mark.parametrize(
    ("protocol", "kind"), [("spice", "spice-html5"), ("rdp", "rdp-html5"), ("mks", "webmks"), ("vnc", "serial")]
)
def test_other_consoles_are_unavailable(
    as_member: Api, make_server: MakeServer, host: Host, protocol: str, kind: str
) -> None:
    body = {"remote_console": {"protocol": protocol, "type": kind}}
    answer = as_member.at("2.8").post(f"{SERVERS}/{make_server()}/remote-consoles", json=body)
    assert (answer.status_code, answer.json["badRequest"]["message"]) == (400, f"Unavailable console type {kind}.")


def test_a_server_that_does_not_run_has_none(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    as_member.post(f"{SERVERS}/{server_id}/action", json={"os-stop": None})
    host.work()
    answer = as_member.at("2.6").post(f"{SERVERS}/{server_id}/remote-consoles", json=NOVNC)
    assert (answer.status_code, answer.json["conflictingRequest"]["message"]) == (
        409,
        f"Instance {server_id} is not ready",
    )


def test_no_url_for_a_machine_without_consoles(
    as_member: Api, make_server: MakeServer, host: Host, database: Database
) -> None:
    server_id = make_server()
    host.hypervisor.guest_powers_off(server_id)  # the agent has not reported the console yet
    answer = as_member.at("2.6").post(f"{SERVERS}/{server_id}/remote-consoles", json=NOVNC)
    words = answer.json["conflictingRequest"]["message"]
    assert (answer.status_code, words) == (409, f"Machine {server_id} does not run.")
    with database.reading() as session:
        assert session.scalars(select(ConsoleToken)).all() == []


def test_registered_remote_hosts_have_consoles(
    as_member: Api, make_server: MakeServer, host: Host, database: Database, app: Flask, settings: Settings
) -> None:
    server_id = make_server()
    with database.transaction() as session:
        session.execute(update(Server).where(Server.id == server_id).values(host="elsewhere"))
    path = f"{SERVERS}/{server_id}/remote-consoles"
    set_(app, broker_url="memory://")
    app.extensions[HOST_CLIENT] = lambda *_: None
    refused = as_member.at("2.6").post(path, json=NOVNC)
    assert (refused.status_code, refused.json["badRequest"]["message"]) == (
        400,
        "Unavailable console type: this server is on a host whose consoles are not served.",
    )
    with database.transaction() as session:
        host_credentials.create(session, SecretCipher(settings), datetime.now(UTC), "elsewhere")
    assert as_member.at("2.6").post(path, json=NOVNC).status_code == 200


def test_other_projects_servers_are_not_found(as_member: Api, host: Host) -> None:
    assert as_member.at("2.6").post(f"{SERVERS}/nowhere/remote-consoles", json=NOVNC).status_code == 404


def test_without_a_proxy_there_are_no_consoles(
    as_member: Api, make_server: MakeServer, host: Host, settings: Settings
) -> None:
    endpoint.remove_port(settings)
    assert as_member.at("2.6").post(f"{SERVERS}/{make_server()}/remote-consoles", json=NOVNC).status_code == 400


def test_token_expires_after_ten_minutes_and_is_stored_hashed(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host, clock: ManualClock, database: Database
) -> None:
    server_id = make_server()
    url = as_member.at("2.6").post(f"{SERVERS}/{server_id}/remote-consoles", json=NOVNC).json["remote_console"]["url"]
    token = token_of(url)
    with database.reading() as session:
        assert token not in session.scalars(select(ConsoleToken.token_hash)).all()
    path = f"{TOKENS}/{token}"
    assert as_member.at("2.31").get(path).status_code == 403
    assert as_admin.get(path).status_code == 401
    shown = as_admin.at("2.31").get(path).json["console"]
    assert (shown["instance_uuid"], shown["host"]) == (server_id, "fake-host")
    assert as_admin.at("2.31").get(f"{TOKENS}/nonsense").status_code == 404
    clock.advance(600)
    assert as_admin.at("2.31").get(path).status_code == 404


def test_deleting_a_server_revokes_its_tokens(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    url = as_member.at("2.6").post(f"{SERVERS}/{server_id}/remote-consoles", json=SERIAL).json["remote_console"]["url"]
    as_member.delete(f"{SERVERS}/{server_id}")
    host.work()
    assert as_admin.at("2.31").get(f"{TOKENS}/{token_of(url)}").status_code == 404


@pytest.fixture
def new_token(make_server: MakeServer, host: Host) -> Callable[[Api], str]:
    """`new_token(api)` creates a VNC console token of a server as this user."""
    path = f"{SERVERS}/{make_server()}/remote-consoles"
    return lambda api: token_of(api.at("2.6").post(path, json=NOVNC).json["remote_console"]["url"])


def test_a_token_opens_five_connections_and_no_more(
    as_member: Api, new_token: Callable[[Api], str], database: Database, clock: ManualClock
) -> None:
    token, opened = new_token(as_member), []

    def connect() -> None:
        try:
            with database.transaction() as session:
                opened.append(console_tokens.use(session, clock.now(), token).server_id)
        except NotFound:
            pass

    threads = [threading.Thread(target=connect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 5
    with database.reading() as session, pytest.raises(NotFound):
        console_tokens.find(session, clock.now(), token)


def _revoke(user: Api, _admin: Api) -> None:
    user.delete(f"{V3}/auth/tokens", headers={"X-Subject-Token": user.token or ""})


def _disable(user: Api, admin: Api) -> None:
    admin.patch(f"{V3}/users/{user.user_id}", json={"user": {"enabled": False}})


def _take_role(user: Api, admin: Api) -> None:
    revoke_role(admin, f"projects/{user.project_id}/users/{user.user_id}", "member")


@pytest.mark.parametrize("end", [_revoke, _disable, _take_role])
def test_token_is_revoked_with_the_rights_of_its_issuer(
    end: Callable[[Api, Api], None],
    as_member: Api,
    as_admin: Api,
    new_token: Callable[[Api], str],
    database: Database,
    clock: ManualClock,
) -> None:
    user = create_user_api(as_admin, Api(as_admin.client), as_member.project_id)
    token, other = new_token(user), new_token(as_member)
    with database.transaction() as session:
        console_tokens.use(session, clock.now(), token)
    end(user, as_admin)
    with database.transaction() as session, pytest.raises(NotFound):
        console_tokens.use(session, clock.now(), token)
    assert as_admin.at("2.31").get(f"{TOKENS}/{token}").status_code == 404
    assert as_admin.at("2.31").get(f"{TOKENS}/{other}").status_code == 200


def test_a_token_does_not_outlive_the_token_of_its_issuer(
    as_member: Api, new_token: Callable[[Api], str], database: Database, clock: ManualClock
) -> None:
    user = as_member.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": as_member.token or ""}).json["token"]
    clock.advance((datetime.fromisoformat(user["expires_at"]) - clock.now()).total_seconds() - 60)
    token = new_token(as_member)
    clock.advance(60)
    with database.reading() as session, pytest.raises(NotFound):
        console_tokens.find(session, clock.now(), token)
