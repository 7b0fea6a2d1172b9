"""Tags of networks, subnets, ports and subnet pools."""

from collections.abc import Sequence
from datetime import datetime

from network_api.models import Network, Port, Subnet, SubnetPool

Tagged = Network | Subnet | Port | SubnetPool


def replace_tags(now: datetime, resource: Tagged, tags: Sequence[str]) -> None:
    """Set the tags of a resource; unchanged tags are not a new revision."""
    if list(tags) != resource.tags:
        resource.tags = list(tags)
        resource.updated_at = now
