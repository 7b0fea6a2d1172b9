"""Response documents of network IP availability."""

from typing import Any

from network_api.resources.availability import TOTAL, Availability


def availability(found: Availability) -> dict[str, Any]:
    """Render the usage of one network."""
    return {
        "network_id": found.network_id,
        "network_name": found.network_name,
        "project_id": found.project_id,
        "tenant_id": found.project_id,
        "total_ips": TOTAL,
        "used_ips": found.used,
        "subnet_ip_availability": [
            {
                "subnet_id": found.subnet_id,
                "subnet_name": found.subnet_name,
                "cidr": found.cidr,
                "ip_version": 6,
                "total_ips": TOTAL,
                "used_ips": found.used,
            }
        ],
    }
