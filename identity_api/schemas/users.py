"""Bodies of users and groups."""

from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from app.web.bodies import Body
from identity_api.auth.passwords import MAX_LENGTH
from identity_api.schemas.common import Fields, Flag, Id, Name, Options, Text

Password = Annotated[str, StringConstraints(max_length=8192)]


class NewUser(Fields):
    name: Name
    domain_id: Id | None = None
    default_project_id: Id | None = None
    password: Password | None = None
    enabled: Flag = True
    options: Options = {}


class UserChange(Fields):
    """Absent fields stay unchanged."""

    name: Name = ""
    domain_id: Id | None = None
    default_project_id: Id | None = None
    password: Password | None = None
    enabled: Flag = True
    options: Options = {}


class PasswordChange(Body):
    model_config = ConfigDict(extra="ignore")

    original_password: Annotated[str, StringConstraints(max_length=MAX_LENGTH)]
    password: Password


class NewGroup(Fields):
    name: Name
    domain_id: Id | None = None
    description: Text | None = None


class GroupChange(Fields):
    """Absent fields stay unchanged."""

    name: Name = ""
    domain_id: Id | None = None
    description: Text | None = None
