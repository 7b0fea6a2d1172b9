"""Key pairs: generated and imported, SSH and X.509, ownership, pages, and changes by microversion."""

from collections.abc import Callable

import pytest

from tests.api.conftest import Api

KEYS = "/compute/v2.1/os-keypairs"


def make(api: Api, **fields: object) -> dict[str, object]:
    answer = api.post(KEYS, json={"keypair": {"name": "k", **fields}})
    assert answer.status_code in (200, 201), answer.text
    made: dict[str, object] = answer.json["keypair"]
    return made


def test_a_private_key_is_shown_once(as_member: Api) -> None:
    made = make(as_member)
    assert str(made["private_key"]).startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    shown = as_member.get(f"{KEYS}/k").json["keypair"]
    assert "private_key" not in shown
    assert shown["public_key"] == made["public_key"]
    assert shown["fingerprint"] == made["fingerprint"]


def test_a_certificate(as_member: Api) -> None:
    made = make(as_member.at("2.2"), type="x509")
    assert made["type"] == "x509"
    assert str(made["public_key"]).startswith("-----BEGIN CERTIFICATE-----")
    assert str(made["private_key"]).startswith("-----BEGIN PRIVATE KEY-----")
    again = make(as_member.at("2.2"), name="again", type="x509", public_key=made["public_key"])
    assert again["fingerprint"] == made["fingerprint"]
    wrong = as_member.at("2.2").post(KEYS, json={"keypair": {"name": "w", "type": "x509", "public_key": "nonsense"}})
    assert wrong.status_code == 400


def test_status_codes_since_2_2_and_imported_keys_only_since_2_92(as_member: Api) -> None:
    assert as_member.post(KEYS, json={"keypair": {"name": "a"}}).status_code == 200
    assert as_member.at("2.2").post(KEYS, json={"keypair": {"name": "b"}}).status_code == 201
    assert as_member.delete(f"{KEYS}/a").status_code == 202
    assert as_member.at("2.2").delete(f"{KEYS}/b").status_code == 204
    refused = as_member.at("2.92").post(KEYS, json={"keypair": {"name": "c"}})
    assert "'public_key' is a required property" in refused.json["badRequest"]["message"]
    key = make(as_member, name="d")["public_key"]
    assert (
        as_member.at("2.92").post(KEYS, json={"keypair": {"name": "me@host.x", "public_key": key}}).status_code == 201
    )
    assert as_member.at("2.92").get(f"{KEYS}/me@host.x").status_code == 200


@pytest.mark.parametrize(
    "fields", [{"name": "me@host"}, {"name": ""}, {"name": "x" * 256}, {"public_key": "nonsense"}, {"name": "a/b"}]
)
def test_invalid_key_pairs_are_rejected(as_member: Api, fields: dict[str, object]) -> None:
    assert as_member.post(KEYS, json={"keypair": {"name": "k", **fields}}).status_code == 400
    assert as_member.get(KEYS).json["keypairs"] == []


def test_names_are_unique_for_each_user(as_member: Api, as_admin: Api) -> None:
    make(as_member)
    assert as_member.post(KEYS, json={"keypair": {"name": "k"}}).status_code == 409
    assert as_admin.get(f"{KEYS}/k").status_code == 404
    assert as_admin.at("2.10").get(f"{KEYS}/k?user_id={as_member.user_id}").status_code == 200
    assert as_member.at("2.10").get(f"{KEYS}?user_id={as_admin.user_id}").status_code == 403
    make(as_admin.at("2.10"), name="given", user_id=as_member.user_id)
    assert as_member.get(f"{KEYS}/given").status_code == 200


def test_pages_from_2_35_on(as_member: Api) -> None:
    for name in "abc":
        make(as_member, name=name)
    assert len(as_member.get(f"{KEYS}?limit=1").json["keypairs"]) == 3
    api, seen, path = as_member.at("2.35"), [], f"{KEYS}?limit=1"
    while path:
        body = api.get(path).json
        seen += [one["keypair"]["name"] for one in body["keypairs"]]
        path = next((link["href"] for link in body.get("keypairs_links", [])), "")
    assert seen == ["a", "b", "c"]
    assert api.get(f"{KEYS}?marker=nobody").status_code == 400


def test_a_server_keeps_a_deleted_key(as_member: Api, make_server: Callable[..., str]) -> None:
    make(as_member)
    server_id = make_server(key_name="k")
    as_member.delete(f"{KEYS}/k")
    assert as_member.get(f"/compute/v2.1/servers/{server_id}").json["server"]["key_name"] == "k"


def test_quota_limits_key_pairs(as_member: Api, as_admin: Api) -> None:
    quota = f"/compute/v2.1/os-quota-sets/{as_member.project_id}"
    as_admin.put(quota, json={"quota_set": {"key_pairs": 1}})
    make(as_member)
    answer = as_member.post(KEYS, json={"keypair": {"name": "second"}})
    assert answer.json["forbidden"]["message"] == "Quota exceeded, too many key pairs."


def test_a_public_key_is_returned_as_sent(as_member: Api) -> None:
    key = f"{make(as_member)['public_key']}\n"
    assert make(as_member, name="sent", public_key=key)["public_key"] == key
    assert as_member.get(f"{KEYS}/sent").json["keypair"]["public_key"] == key
