"""Bodies of roles."""

from identity_api.schemas.common import Fields, Id, Name, Options, Text


class NewRole(Fields):
    name: Name
    domain_id: Id | None = None
    description: Text | None = None
    options: Options = {}


class RoleChange(Fields):
    """Absent fields stay unchanged."""

    name: Name = ""
    domain_id: Id | None = None
    description: Text | None = None
    options: Options = {}
