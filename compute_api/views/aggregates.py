"""Views of host aggregates."""

from collections.abc import Sequence
from typing import Any

from app.web.microversion import Version, v
from compute_api.hosts import aggregates
from compute_api.models import Aggregate
from compute_api.views.servers import format_microseconds

UUID_SINCE = v("2.41")


def created(aggregate: Aggregate, version: Version) -> dict[str, Any]:
    """Render the response of POST, which has neither hosts nor metadata."""
    body = show(aggregate, (), version)
    del body["hosts"], body["metadata"]
    return body


def show(aggregate: Aggregate, hosts: Sequence[str], version: Version) -> dict[str, Any]:
    """Render an aggregate with the names of its hosts."""
    body: dict[str, Any] = {
        "id": aggregate.id,
        "name": aggregate.name,
        "availability_zone": aggregate.metadata_.get(aggregates.ZONE),
        "hosts": list(hosts),
        "metadata": aggregate.metadata_,
        "created_at": format_microseconds(aggregate.created_at),
        "updated_at": format_microseconds(aggregate.updated_at),
        "deleted": False,
        "deleted_at": None,
    }
    if version >= UUID_SINCE:
        body["uuid"] = aggregate.uuid
    return body
