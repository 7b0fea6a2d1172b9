"""Views of server groups."""

from collections.abc import Sequence
from typing import Any

from app.web.microversion import Version, v
from compute_api.models import ServerGroup

OWNER_SINCE, RULES_SINCE = v("2.13"), v("2.64")


def show(group: ServerGroup, members: Sequence[str], version: Version) -> dict[str, Any]:
    """Render a server group with the ids of its members."""
    body: dict[str, Any] = {"id": group.id, "name": group.name, "members": list(members)}
    if version >= RULES_SINCE:
        body["policy"] = group.policy
        body["rules"] = {"max_server_per_host": group.max_server_per_host} if group.max_server_per_host else {}
    else:
        body["policies"] = [group.policy]
        body["metadata"] = {}
    if version >= OWNER_SINCE:
        body |= {"project_id": group.project_id, "user_id": group.user_id}
    return body
