"""Request bodies of key pairs."""

from typing import Annotated, Literal

from app.web.bodies import Body, since
from compute_api.schemas.fields import Name


class KeyPairFields(Body):
    """The key pair of POST /os-keypairs."""

    name: Name
    public_key: str | None = None
    type: Annotated[Literal["ssh", "x509"] | None, since("2.2")] = None
    user_id: Annotated[str | None, since("2.10")] = None


class CreateKeyPair(Body):
    """POST /os-keypairs."""

    keypair: KeyPairFields
