"""Field types of compute request bodies, with Nova's validation."""

import base64
import binascii
import re
from ipaddress import IPv4Address
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from app.core.addresses import parse_ipv6_address
from app.core.numbers import parse_integer

_METADATA_KEY = re.compile(r"[A-Za-z0-9_:. -]{1,255}")


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("it must not be blank")
    if text != text.strip():
        raise ValueError("it must not begin or end with a space")
    if not text.isprintable():
        raise ValueError("it must consist of printable characters")
    return text


def _string(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not of type 'string'")
    return value


def _boolean(value: Any) -> bool:
    """Parse a boolean as Nova does: JSON booleans and true, 1, on, yes, false, 0, off, no."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "1", "on", "yes"):
        return True
    if isinstance(value, str) and value.lower() in ("false", "0", "off", "no"):
        return False
    raise ValueError(f"{value!r} is not a boolean")


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not an integer")
    try:
        return parse_integer(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is not an integer") from None


def _user_data(text: str) -> str:
    if len(text) > 65535:
        raise ValueError("it is too long: 65535 characters of base64 at most")
    return _base64(text)


def _base64(text: str) -> str:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise ValueError("it is not base64") from None
    return text


def _metadata(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not of type 'object'")
    for key, item in value.items():
        if not isinstance(item, str):
            raise ValueError(f"{item!r} is not of type 'string'")
        if not _METADATA_KEY.fullmatch(key):
            raise ValueError("keys are 1 to 255 letters, digits, spaces and characters of -_:.")
        if len(item) > 255:
            raise ValueError(f"the value of {key!r} is too long: 255 characters at most")
    return value


Name = Annotated[
    str, BeforeValidator(_string), StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)
]
Text = Annotated[str, BeforeValidator(_string), StringConstraints(max_length=255)]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
Integer = Annotated[int, BeforeValidator(_integer)]
Base64 = Annotated[str, BeforeValidator(_string), AfterValidator(_base64)]
UserData = Annotated[str, BeforeValidator(_string), AfterValidator(_user_data)]
Metadata = Annotated[dict[str, str], BeforeValidator(_metadata)]
DiskConfig = Annotated[str, BeforeValidator(_string), StringConstraints(pattern="^(AUTO|MANUAL)$")]
HostName = Annotated[
    str,
    BeforeValidator(_string),
    StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"),
]
Tag = Annotated[str, BeforeValidator(_string), StringConstraints(min_length=1, max_length=60, pattern="^[^,/]*$")]


def _v4(value: Any) -> str:
    text = _string(value)
    return str(IPv4Address(text)) if text else ""


def _v6(value: Any) -> str:
    text = _string(value)
    return str(parse_ipv6_address(text)) if text else ""


def _ip(value: Any) -> str:
    """Parse an address of either IP version, as Nova does; networks reject IPv4 later."""
    text = _string(value)
    return str(parse_ipv6_address(text)) if ":" in text else str(IPv4Address(text))


AccessV4 = Annotated[str, BeforeValidator(_v4)]
AccessV6 = Annotated[str, BeforeValidator(_v6)]
Address = Annotated[str, BeforeValidator(_ip)]
