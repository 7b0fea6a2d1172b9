"""Neutron's rules and who passes them.

The target is the thing itself, or for `create_subnet`, `…:mac_address` and `…:ip_address` the network it is on: who
owns a network may choose addresses on it; on the shared one only an operator may.
"""

from app.web.policy import ADMIN, ANYBODY, MEMBER_OR_ADMIN, READER_OR_ADMIN

RULES: dict[str, str] = {
    "create_network": MEMBER_OR_ADMIN,
    "create_network:shared": ADMIN,
    "get_network": READER_OR_ADMIN,
    "get_network:provider:segmentation_id": ADMIN,
    "update_network": MEMBER_OR_ADMIN,
    "update_network:shared": ADMIN,
    "delete_network": MEMBER_OR_ADMIN,
    "create_subnet": MEMBER_OR_ADMIN,
    "create_subnet:cidr": ADMIN,
    "get_subnet": READER_OR_ADMIN,
    "update_subnet": MEMBER_OR_ADMIN,
    "delete_subnet": MEMBER_OR_ADMIN,
    "create_port": MEMBER_OR_ADMIN,
    "create_port:mac_address": MEMBER_OR_ADMIN,
    "create_port:fixed_ips:ip_address": MEMBER_OR_ADMIN,
    "get_port": READER_OR_ADMIN,
    "get_port:binding:host_id": ADMIN,
    "update_port": MEMBER_OR_ADMIN,
    "update_port:mac_address": MEMBER_OR_ADMIN,
    "update_port:fixed_ips:ip_address": MEMBER_OR_ADMIN,
    "delete_port": MEMBER_OR_ADMIN,
    "create_subnetpool": ADMIN,
    "get_subnetpool": READER_OR_ADMIN,
    "update_subnetpool": ADMIN,
    "delete_subnetpool": ADMIN,
    "get_quota": READER_OR_ADMIN,
    "update_quota": ADMIN,
    "delete_quota": ADMIN,
    "get_agent": ADMIN,
    "get_availability_zone": ANYBODY,
    "get_network_ip_availability": ADMIN,
    "get_service_provider": ANYBODY,
    "get_extension": ANYBODY,
    "get_floatingip": READER_OR_ADMIN,
    "create_floatingip": MEMBER_OR_ADMIN,
    "get_router": READER_OR_ADMIN,
    "create_router": MEMBER_OR_ADMIN,
    "get_security_group": READER_OR_ADMIN,
    "create_security_group": MEMBER_OR_ADMIN,
    "get_security_group_rule": READER_OR_ADMIN,
    "create_security_group_rule": MEMBER_OR_ADMIN,
}
