"""All address fields of request bodies refuse scope ids."""

import importlib
import pkgutil
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import compute_api.schemas
import network_api.schemas
from app.web.bodies import Body
from network_api.schemas.fields import Nameserver

ADDRESSES = (IPv6Address, IPv6Interface, IPv6Network)
WORDS = ("ip", "ips", "ipv6", "address", "cidr", "gateway", "nameservers", "prefixes", "nexthop", "destination")
NO_ADDRESS = {"mac_address", "ipv6_ra_mode", "ipv6_address_mode"}
SCOPED = ["2001:db8::1%eth0", "fe80::1%x {};\n}", "2001:db8::1%9/64", "::%\n", "2001:db8::%a/64", "2001:db8::1%"]


def bodies() -> Iterator[type[Body]]:
    """Yield all request body models of network and compute."""
    for package in (network_api.schemas, compute_api.schemas):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, Body) and value.__module__ == module.name:
                    yield value


def nested_types(annotation: Any) -> Iterator[Any]:
    """Yield all types within an annotation."""
    yield annotation
    for part in get_args(annotation):
        yield from nested_types(part)


def takes_addresses(name: str, field: FieldInfo) -> bool:
    found = list(nested_types(field.annotation))
    if any(kind in ADDRESSES for kind in found):
        return True
    if name in NO_ADDRESS or any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in found):
        return False
    return str in found and any(word in name.split("_") for word in WORDS)


FIELDS = [
    pytest.param(TypeAdapter(field.rebuild_annotation()), id=f"{body.__module__.split('.')[0]}-{body.__name__}-{name}")
    for body in bodies()
    for name, field in body.model_fields.items()
    if takes_addresses(name, field)
]


def test_address_fields_are_discovered() -> None:
    names = {str(field.id) for field in FIELDS}
    assert {
        "network_api-NewSubnetFields-cidr",
        "network_api-NewSubnetFields-gateway_ip",
        "network_api-SubnetFields-dns_nameservers",
        "network_api-FixedIp-ip_address",
        "network_api-AddressPair-ip_address",
        "network_api-NewSubnetPoolFields-prefixes",
        "compute_api-Interface-fixed_ip",
        "compute_api-FixedIp-ip_address",
        "compute_api-ServerFields-access_ipv6",
        "compute_api-RebuildBody-access_ipv6",
    } <= names


@pytest.mark.parametrize("field", FIELDS)
def test_address_fields_refuse_scope_ids(field: TypeAdapter[Any]) -> None:
    plain = ("2001:db8::1", ["2001:db8::1"])
    assert sum(accepts(field, value) for value in plain) >= 1, "the probe has the shape of the field"
    for text in SCOPED:
        assert not accepts(field, text), text
        assert not accepts(field, [text]), text


@pytest.mark.parametrize("text", ["ff02::1", "::1", "fe80::1", "::"])
def test_unreachable_name_servers_are_refused(text: str) -> None:
    assert not accepts(TypeAdapter(Nameserver), text)


def accepts(field: TypeAdapter[Any], value: Any) -> bool:
    try:
        field.validate_python(value)
    except ValidationError:
        return False
    return True
