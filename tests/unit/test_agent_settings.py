"""Invalid settings are rejected with an error that names the setting, before any process starts."""

from pathlib import Path

import pytest

from app.commands.cli import main
from app.core.errors import OperatorError
from app.core.installation import Installation
from app.core.settings import Settings
from compute_agent.host_config import make_hypervisor


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SIXSTACK_PEERS": "192.0.2.1"}, "VXLAN goes over IPv6"),
        ({"SIXSTACK_DNS_SERVERS": "192.0.2.53"}, "guests have IPv6 only"),
        ({"SIXSTACK_NAT64": "yes", "SIXSTACK_NAT64_PREFIX": "2001:db8::/97"}, "NAT64 prefix"),
        ({"SIXSTACK_NAT64": "yes", "SIXSTACK_NAT64_MAP": "192.0.2.7"}, "SIXSTACK_NAT64_"),
        ({"SIXSTACK_NAT64": "yes", "SIXSTACK_NAT64_MAP": "192.168.240.7=2001:db8::7"}, "cannot be mapped"),
        ({"SIXSTACK_NAT64_ALLOW": "10.0.0.1/8"}, "SIXSTACK_NAT64_ALLOW"),
        ({"SIXSTACK_GUESTS_REACH_PORTS": "8774,https"}, "--guests-reach-ports"),
        ({"SIXSTACK_GUESTS_REACH_PORTS": "70000"}, "--guests-reach-ports"),
        ({"SIXSTACK_MIGRATION_PORTS": "49152"}, "^SIXSTACK_MIGRATION_PORTS is two numbers"),
        ({"SIXSTACK_MIGRATION_PORTS": "80-90"}, "of 1024 to 65535"),
        ({"SIXSTACK_MIGRATION_ADDRESS": "192.0.2.1"}, "^SIXSTACK_MIGRATION_ADDRESS"),
        ({"SIXSTACK_RA_LIFETIME_SECONDS": "10"}, "RA_LIFETIME"),
        ({"SIXSTACK_RA_PREFERRED_SECONDS": "99999999"}, "RA_PREFERRED"),
    ],
)
def test_errors_name_the_invalid_setting(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    settings = Settings.read({"state": tmp_path}, environ)
    with pytest.raises(OperatorError, match=words):
        make_hypervisor(settings, Installation(id="0123", prefix="fd00::/48", vni_base=4096, mtu=1430))


def test_settings_round_trip_through_the_environment(tmp_path: Path) -> None:
    settings = Settings.read(
        {"state": tmp_path, "nat64": True, "peers": "fd00::1,fd00::2", "guests_reach_ports": "8774"}, {}
    )
    assert Settings.read({}, settings.environ()) == settings


def test_invalid_booleans_are_rejected() -> None:
    assert not Settings.read({}, {"SIXSTACK_AGENT": "False"}).agent
    with pytest.raises(OperatorError, match="SIXSTACK_ISOLATE_GUESTS must be true or false, not 'ture'"):
        Settings.read({}, {"SIXSTACK_ISOLATE_GUESTS": "ture"})


def test_missing_database_url_is_named_in_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIXSTACK_DATABASE_URL", raising=False)
    assert main(["host", "list", "--state", str(tmp_path)]) == 1
    assert "set SIXSTACK_DATABASE_URL" in capsys.readouterr().err


def test_trusted_proxies_are_networks() -> None:
    with pytest.raises(OperatorError, match="SIXSTACK_TRUSTED_PROXIES: 'nonsense'"):
        _ = Settings(trusted_proxies="2001:db8::/48, nonsense").proxies
