"""Bodies of projects and domains."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.web.bodies import Body
from identity_api.schemas.common import Fields, Flag, Id, Options, ShortName, Tag, Text


class NewProject(Fields):
    name: ShortName
    description: Text | None = None
    domain_id: Id | None = None
    parent_id: Id | None = None
    is_domain: Flag = False
    enabled: Flag = True
    tags: list[Tag] = []
    options: Options = {}


class ProjectChange(Fields):
    """Absent fields stay unchanged."""

    name: ShortName = ""
    description: Text | None = None
    domain_id: Id | None = None
    parent_id: Id | None = None
    is_domain: Flag = False
    enabled: Flag = True
    tags: list[Tag] = []
    options: Options = {}


class NewDomain(Fields):
    name: ShortName
    description: Text | None = None
    enabled: Flag = True
    tags: list[Tag] = []
    options: Options = {}


class DomainChange(Fields):
    """Absent fields stay unchanged."""

    name: ShortName = ""
    description: Text | None = None
    enabled: Flag = True
    tags: list[Tag] = []
    options: Options = {}


class Tags(Body):
    model_config = ConfigDict(extra="ignore")

    tags: Annotated[list[Tag], Field(max_length=80)]
