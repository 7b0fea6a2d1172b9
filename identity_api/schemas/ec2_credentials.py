"""Bodies of stored credentials and EC2 key pairs."""

from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from app.web.bodies import Body
from identity_api.schemas.common import Fields, Id, Name

Blob = Annotated[str, StringConstraints(max_length=65535)]


class NewCredential(Fields):
    type: Name
    blob: Blob
    project_id: Id | None = None
    user_id: Id | None = None


class CredentialChange(Fields):
    """Absent fields stay unchanged; only the blob may change."""

    blob: Blob | None = None
    type: Name = ""
    project_id: Id | None = None
    user_id: Id | None = None


class NewEc2(Body):
    model_config = ConfigDict(extra="ignore")

    tenant_id: Id
