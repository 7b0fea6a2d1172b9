"""os-server-password: the password that a guest posted to the metadata service, and its deletion."""

from collections.abc import Callable

from tests.api.conftest import Api, Host

SERVERS = "/compute/v2.1/servers"


def test_password_of_the_guest_is_shown_until_it_is_cleared(
    as_member: Api, make_server: Callable[..., str], host: Host
) -> None:
    path = f"{SERVERS}/{make_server()}/os-server-password"
    server_id = path.split("/")[-2]
    assert as_member.get(path).json == {"password": ""}
    host.hypervisor.passwords[server_id] = b"ZW5jcnlwdGVk"
    assert as_member.get(path).json == {"password": "ZW5jcnlwdGVk"}
    assert as_member.delete(path).status_code == 204
    assert as_member.get(path).json == {"password": ""}


def test_a_server_without_a_host_has_none(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    server_id = make_server()
    as_member.post(f"{SERVERS}/{server_id}/action", json={"shelve": None})
    host.work()
    as_member.post(f"{SERVERS}/{server_id}/action", json={"shelveOffload": None})
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}/os-server-password").json == {"password": ""}
    assert as_member.delete(f"{SERVERS}/{server_id}/os-server-password").status_code == 204
