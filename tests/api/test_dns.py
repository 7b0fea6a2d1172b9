"""DNS records of servers, synced to a real name server (BIND) whose zones also have other records."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from app import supervisor
from app.commands import dns
from app.core.clock import SystemClock
from app.core.errors import OperatorError
from app.core.settings import Settings
from app.dns import status
from app.dns.client import NameServer, Record, reverse_name
from app.dns.records import NamedServer, assign_labels
from tests.api.conftest import Api, Host
from tests.api.test_network_servers import create, make_network

ZONE, REVERSE = "cloud.example", "d.f.ip6.arpa"
KEY = """key "sixstack" { algorithm hmac-sha256; secret "dGhpcyBpcyBhIHNlY3JldCBmb3IgdGVzdHM="; };\n"""
RECORDS = """\
$TTL 300
@ IN SOA ns.cloud.example. root.cloud.example. 1 3600 600 86400 300
@ IN NS ns.cloud.example.
"""
CONFIGURATION = """\
include "{directory}/key";
options {{
  directory "{directory}"; pid-file none; session-keyfile "{directory}/session"; recursion no;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no;
  allow-transfer {{ key sixstack; }};
}};
controls {{ }};
zone "cloud.example" {{ type primary; file "zone"; allow-update {{ key sixstack; }}; }};
zone "d.f.ip6.arpa" {{ type primary; file "reverse"; allow-update {{ key sixstack; }}; }};
"""


@pytest.fixture
def named(tmp_path: Path, settings: Settings) -> Iterator[Settings]:
    """Settings with a running name server that has both zones."""
    if shutil.which("named") is None:
        pytest.skip("no name server: apt install bind9")
    directory = tmp_path / "named"
    directory.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "key").write_text(KEY)
    (directory / "zone").write_text(f"{RECORDS}ns IN A 127.0.0.1\nwww IN CNAME ns\nmail IN AAAA 2001:db8::25\n")
    (directory / "reverse").write_text(f"{RECORDS}7 IN PTR elsewhere.example.\n")
    (directory / "named.conf").write_text(CONFIGURATION.format(directory=directory, port=port))
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(["named", "-g", "-n", "1", "-c", str(directory / "named.conf")], stderr=log)
    deadline = time.monotonic() + 60
    while "\n" not in (output := (directory / "log").read_text()) or " running\n" not in output:
        assert process.poll() is None, output
        assert time.monotonic() < deadline, output
        time.sleep(0.05)
    yield replace(
        settings,
        dns_zone=ZONE,
        dns_reverse_zones=REVERSE,
        dns_server=f"127.0.0.1:{port}",
        dns_key_file=directory / "key",
    )
    process.terminate()
    process.wait(30)


def read_records(settings: Settings) -> tuple[dict[str, str], dict[str, str], str]:
    """Return the AAAA records, the PTR records, and the serial number of the forward zone."""
    server = NameServer("127.0.0.1", int(settings.dns_server.rpartition(":")[2]), settings.dns_key_file)
    forward, back = server.records(f"{ZONE}."), server.records(f"{REVERSE}.")
    [serial] = {record.value.split()[2] for record in forward if record.kind == "SOA"}
    addresses = {record.name: record.value for record in forward if record.kind == "AAAA"}
    return addresses, {record.name: record.value for record in back if record.kind == "PTR"}, serial


def test_sync_updates_the_records_of_servers(
    as_member: Api, make_server: Callable[..., str], image: str, host: Host, named: Settings
) -> None:
    def address(server_id: str) -> Any:
        [[one]] = as_member.get(f"/compute/v2.1/servers/{server_id}").json["server"]["addresses"].values()
        return one["addr"]

    network = make_network(as_member, "inside", subnet=False)
    as_member.post("/network/v2.0/subnets", json={"subnet": {"network_id": network, "gateway_ip": None}})
    create(as_member, image, [{"uuid": network}])
    [public] = as_member.get("/network/v2.0/networks?name=public").json["networks"]
    on_public = {"networks": [{"uuid": public["id"]}]}
    first, second, www = (make_server(name, **on_public) for name in ("web", "web", "www"))
    dns.sync(named, None)
    others = {"mail.cloud.example.": "2001:db8::25"}
    expected = {
        "web.cloud.example.": address(first),
        f"web-{second[:8]}.cloud.example.": address(second),
        f"www-{www[:8]}.cloud.example.": address(www),
    }
    addresses, pointers, serial = read_records(named)
    assert addresses == expected | others
    assert pointers == {reverse_name(IPv6Address(value)): name for name, value in expected.items()} | {
        "7.d.f.ip6.arpa.": "elsewhere.example."
    }

    dns.sync(named, None)
    assert read_records(named)[2] == serial, "a sync without changes writes nothing"

    for server_id in (first, www):
        as_member.delete(f"/compute/v2.1/servers/{server_id}")
    host.work()
    dns.sync(named, None)
    addresses, pointers, _ = read_records(named)
    assert addresses == {"web.cloud.example.": address(second)} | others
    assert list(pointers.values()).count("web.cloud.example.") == 1
    assert len(pointers) == 2


def test_the_sync_process_updates_records_and_status(make_server: Callable[..., str], named: Settings) -> None:
    def wait_until(look: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not look():
            assert time.monotonic() < deadline
            assert sync_process.poll() is None
            time.sleep(0.05)

    def status_contains(text: str) -> bool:
        return text in (status.summary(named, SystemClock().now()) or "")

    [child] = [child for child in supervisor.make_children(named) if "app.commands.dns" in child.command]
    environment = {**os.environ, **replace(named, dns_sync_seconds=0.1).environ()}
    sync_process = subprocess.Popen(child.command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: status_contains("is in sync"))
        make_server("web")
        wait_until(lambda: "web.cloud.example." in read_records(named)[0])
        assert named.dns_key_file
        named.dns_key_file.rename(named.dns_key_file.with_suffix(".gone"))
        wait_until(lambda: status_contains("failed"))
        named.dns_key_file.with_suffix(".gone").rename(named.dns_key_file)
        wait_until(lambda: status_contains("is in sync"))
    finally:
        sync_process.terminate()
        errors = sync_process.communicate(timeout=30)[1]
    assert errors.count("cannot be read") == 1, "a persistent error is logged once"
    assert "sync works again" in errors


def test_the_sync_process_needs_zone_server_and_interval(settings: Settings) -> None:
    configured = replace(settings, dns_zone=ZONE, dns_server="127.0.0.1", dns_sync_seconds=0)
    for without in (settings, configured, replace(configured, dns_server="", dns_sync_seconds=1)):
        assert "app.commands.dns" not in str(supervisor.make_children(without))
    invalid = replace(configured, dns_sync_seconds=1, dns_server="ns.example", agent=False)
    with pytest.raises(OperatorError, match="ADDRESS or ADDRESS:PORT"):
        supervisor.up(invalid)


def test_sync_reports_refusals_and_invalid_settings(named: Settings, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="Zone transfer of cloud"):
        dns.sync(replace(named, dns_key_file=None), None)
    with pytest.raises(OperatorError, match="ADDRESS or ADDRESS:PORT"):
        dns.sync(replace(named, dns_server="ns.example"), None)
    with pytest.raises(OperatorError, match="DNS_ZONE"):
        dns.sync(replace(named, dns_zone=""), None)
    (tmp_path / "nothing").write_text("x")
    with pytest.raises(OperatorError, match="tsig-keygen"):
        dns.sync(replace(named, dns_key_file=tmp_path / "nothing"), None)
    server = NameServer("127.0.0.1", int(named.dns_server.rpartition(":")[2]), None)
    with pytest.raises(OperatorError, match="REFUSED"):
        server.change("cloud.example.", [], [Record("x.cloud.example.", "AAAA", "fd00::1")], 300)


def test_records_are_printed_for_a_zone_file(
    make_server: Callable[..., str], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    make_server("web")
    assert dns.show(replace(settings, dns_zone="Cloud.Example.")) == 0
    forward, back = capsys.readouterr().out.splitlines()
    assert forward.startswith("web.cloud.example. 300 IN AAAA fd")
    assert back.endswith(".d.f.ip6.arpa. 300 IN PTR web.cloud.example.")


def test_labels_are_valid_and_unique() -> None:
    address = (IPv6Address("fd00::1"),)
    wanted = [("a", "web"), ("b", "Web"), ("c", "db.example.org"), ("d", "x_y"), ("e", "n" * 63), ("f", "n" * 63)]
    known = [NamedServer(f"{number * 4}-0000", hostname, address) for number, hostname in wanted]
    longest = "n" * 63
    expected = {"web", "web-bbbb-000", "db", "server-dddd-000", longest, f"{longest[:54]}-ffff-000"}
    assert assign_labels(known).keys() == expected
    assert assign_labels(known[:1], {"web"}).keys() == {"web-aaaa-000"}
