"""Bodies of …/tags."""

from app.web.bodies import Body
from network_api.schemas.fields import Tags


class ReplaceTags(Body):
    """PUT …/tags."""

    tags: Tags
