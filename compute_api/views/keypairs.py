"""Views of key pairs."""

from typing import Any

from app.web.microversion import Version, v
from compute_api.models import KeyPair
from compute_api.views.servers import format_microseconds

TYPE_SINCE = v("2.2")


def brief(key: KeyPair, version: Version) -> dict[str, Any]:
    """Render an entry of GET /os-keypairs."""
    body: dict[str, Any] = {"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint}
    if version >= TYPE_SINCE:
        body["type"] = key.type
    return body


def created(key: KeyPair, private_key: str | None, version: Version) -> dict[str, Any]:
    """Render the response of POST, with the private key if one was generated."""
    body = {**brief(key, version), "user_id": key.user_id}
    if private_key is not None:
        body["private_key"] = private_key
    return body


def show(key: KeyPair, version: Version) -> dict[str, Any]:
    """Render a key pair with all fields."""
    return {
        **brief(key, version),
        "user_id": key.user_id,
        "id": key.id,
        "created_at": format_microseconds(key.created_at),
        "updated_at": None,
        "deleted_at": None,
        "deleted": False,
    }
