"""Token payload, packed with msgpack so that a Fernet token has at most 255 characters."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, IntFlag

import msgpack

FORMAT = 1


class Method(IntFlag):
    """Authentication methods; the names are those of the API."""

    PASSWORD = 1
    TOKEN = 2
    APPLICATION_CREDENTIAL = 4

    def names(self) -> list[str]:
        return [method.name.lower() for method in Method if method in self and method.name]


class Scope(IntEnum):
    """Kind of a token's scope."""

    UNSCOPED = 0
    PROJECT = 1
    DOMAIN = 2
    SYSTEM = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Content of a token. `generation` must equal the user's; `parent_audit_id` is the first audit id of the chain."""

    user_id: str
    methods: Method
    scope: Scope
    scope_id: str
    issued_at: datetime
    expires_at: datetime
    audit_id: bytes
    parent_audit_id: bytes | None
    generation: int
    application_credential_id: str | None = None

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(
            (
                FORMAT,
                int(self.methods),
                int(self.scope),
                _pack_id(self.user_id),
                _pack_id(self.scope_id),
                _to_microseconds(self.issued_at),
                _to_microseconds(self.expires_at),
                self.audit_id,
                self.parent_audit_id,
                self.generation,
                _pack_id(self.application_credential_id),
            )
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> "Payload":
        """Inverse of `pack`. Raises ValueError for other bytes."""
        fields = msgpack.unpackb(packed)
        if not isinstance(fields, list) or not fields or fields[0] != FORMAT:
            raise ValueError("unknown token format")
        _, methods, scope, user_id, scope_id, issued, expires, audit, parent, generation, credential = fields
        return cls(
            user_id=_unpack_id(user_id) or "",
            methods=Method(methods),
            scope=Scope(scope),
            scope_id=_unpack_id(scope_id) or "",
            issued_at=_from_microseconds(issued),
            expires_at=_from_microseconds(expires),
            audit_id=audit,
            parent_audit_id=parent,
            generation=generation,
            application_credential_id=_unpack_id(credential),
        )


def _pack_id(id_: str | None) -> bytes | str | None:
    """Pack 32 hex digits as 16 bytes; other ids stay text."""
    if id_ is None or len(id_) != 32:
        return id_
    try:
        short = bytes.fromhex(id_)
    except ValueError:
        return id_
    return short if short.hex() == id_ else id_


def _unpack_id(id_: bytes | str | None) -> str | None:
    return id_.hex() if isinstance(id_, bytes) else id_


def _to_microseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


def _from_microseconds(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
