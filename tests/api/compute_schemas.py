"""Validation of compute responses against tempest's JSON schemas, by microversion.

The table maps requests to schemas of tempest's clients, which have the microversions of the clients.
"""

import re
from types import ModuleType
from typing import Any

import orjson
from tempest.lib.api_schema.response.compute.v2_1 import (
    availability_zone,
    extensions,
    flavors_access,
    flavors_extra_specs,
    floating_ips,
    security_groups,
    snapshots,
    tenant_networks,
    tenant_usages,
    versions,
    volumes,
)
from tempest.lib.api_schema.response.compute.v2_1 import hosts as hosts_v21
from tempest.lib.api_schema.response.compute.v2_1 import hypervisors as hypervisors_v21
from tempest.lib.api_schema.response.compute.v2_1 import services as services_v21
from tempest.lib.api_schema.response.compute.v2_11 import services as services_v211
from tempest.lib.common.api_version_request import APIVersionRequest
from tempest.lib.common.rest_client import RestClient
from tempest.lib.services.compute.aggregates_client import AggregatesClient
from tempest.lib.services.compute.flavors_client import FlavorsClient
from tempest.lib.services.compute.hypervisor_client import HypervisorClient
from tempest.lib.services.compute.images_client import ImagesClient
from tempest.lib.services.compute.interfaces_client import InterfacesClient
from tempest.lib.services.compute.keypairs_client import KeyPairsClient
from tempest.lib.services.compute.limits_client import LimitsClient
from tempest.lib.services.compute.migrations_client import MigrationsClient
from tempest.lib.services.compute.quota_classes_client import QuotaClassesClient
from tempest.lib.services.compute.quotas_client import QuotasClient
from tempest.lib.services.compute.server_groups_client import ServerGroupsClient
from tempest.lib.services.compute.servers_client import ServersClient
from tempest.lib.services.compute.services_client import ServicesClient
from werkzeug.test import TestResponse

Schemas = type[RestClient] | ModuleType
ID = r"[^/]+"

TABLE: list[tuple[str, str, Schemas, str]] = [
    ("GET", "", versions, "list_versions"),
    ("GET", "v2.1", versions, "get_one_version"),
    ("POST", "servers", ServersClient, "create_server_with_admin_pass"),
    ("GET", "servers", ServersClient, "list_servers"),
    ("GET", "servers/detail", ServersClient, "list_servers_detail"),
    ("GET", f"servers/{ID}", ServersClient, "get_server"),
    ("PUT", f"servers/{ID}", ServersClient, "update_server"),
    ("DELETE", f"servers/{ID}", ServersClient, "delete_server"),
    ("GET", f"servers/{ID}/ips", ServersClient, "list_addresses"),
    ("GET", f"servers/{ID}/ips/{ID}", ServersClient, "list_addresses_by_network"),
    ("GET", f"servers/{ID}/metadata", ServersClient, "list_server_metadata"),
    ("PUT", f"servers/{ID}/metadata", ServersClient, "set_server_metadata"),
    ("POST", f"servers/{ID}/metadata", ServersClient, "update_server_metadata"),
    ("GET", f"servers/{ID}/metadata/{ID}", ServersClient, "set_show_server_metadata_item"),
    ("PUT", f"servers/{ID}/metadata/{ID}", ServersClient, "set_show_server_metadata_item"),
    ("DELETE", f"servers/{ID}/metadata/{ID}", ServersClient, "delete_server_metadata_item"),
    ("GET", f"servers/{ID}/os-volume_attachments", ServersClient, "list_volume_attachments"),
    ("GET", f"servers/{ID}/os-security-groups", security_groups, "list_security_groups"),
    ("GET", f"servers/{ID}/os-server-password", ServersClient, "show_password"),
    ("GET", f"servers/{ID}/migrations", ServersClient, "list_live_migrations"),
    ("GET", f"servers/{ID}/diagnostics", ServersClient, "show_server_diagnostics"),
    ("POST", f"servers/{ID}/remote-consoles", ServersClient, "get_remote_consoles"),
    ("GET", f"servers/{ID}/os-instance-actions", ServersClient, "list_instance_actions"),
    ("GET", f"servers/{ID}/os-instance-actions/{ID}", ServersClient, "show_instance_action"),
    ("GET", f"servers/{ID}/tags", ServersClient, "list_tags"),
    ("PUT", f"servers/{ID}/tags", ServersClient, "update_all_tags"),
    ("DELETE", f"servers/{ID}/tags", ServersClient, "delete_all_tags"),
    ("GET", f"servers/{ID}/tags/{ID}", ServersClient, "check_tag_existence"),
    ("PUT", f"servers/{ID}/tags/{ID}", ServersClient, "update_tag"),
    ("DELETE", f"servers/{ID}/tags/{ID}", ServersClient, "delete_tag"),
    ("GET", f"servers/{ID}/os-interface", InterfacesClient, "list_interfaces"),
    ("POST", f"servers/{ID}/os-interface", InterfacesClient, "get_create_interfaces"),
    ("GET", f"servers/{ID}/os-interface/{ID}", InterfacesClient, "get_create_interfaces"),
    ("DELETE", f"servers/{ID}/os-interface/{ID}", InterfacesClient, "delete_interface"),
    ("GET", "flavors", FlavorsClient, "list_flavors"),
    ("GET", "flavors/detail", FlavorsClient, "list_flavors_details"),
    ("POST", "flavors", FlavorsClient, "create_update_get_flavor_details"),
    ("GET", f"flavors/{ID}", FlavorsClient, "create_update_get_flavor_details"),
    ("PUT", f"flavors/{ID}", FlavorsClient, "create_update_get_flavor_details"),
    ("DELETE", f"flavors/{ID}", FlavorsClient, "delete_flavor"),
    ("POST", f"flavors/{ID}/os-extra_specs", flavors_extra_specs, "set_get_flavor_extra_specs"),
    ("GET", f"flavors/{ID}/os-extra_specs", flavors_extra_specs, "set_get_flavor_extra_specs"),
    ("GET", f"flavors/{ID}/os-extra_specs/{ID}", flavors_extra_specs, "set_get_flavor_extra_specs_key"),
    ("PUT", f"flavors/{ID}/os-extra_specs/{ID}", flavors_extra_specs, "set_get_flavor_extra_specs_key"),
    ("DELETE", f"flavors/{ID}/os-extra_specs/{ID}", flavors_extra_specs, "unset_flavor_extra_specs"),
    ("GET", f"flavors/{ID}/os-flavor-access", flavors_access, "add_remove_list_flavor_access"),
    ("POST", f"flavors/{ID}/action", flavors_access, "add_remove_list_flavor_access"),
    ("GET", "os-keypairs", KeyPairsClient, "list_keypairs"),
    ("POST", "os-keypairs", KeyPairsClient, "create_keypair"),
    ("GET", f"os-keypairs/{ID}", KeyPairsClient, "get_keypair"),
    ("DELETE", f"os-keypairs/{ID}", KeyPairsClient, "delete_keypair"),
    ("GET", f"os-quota-sets/{ID}", QuotasClient, "get_quota_set"),
    ("GET", f"os-quota-sets/{ID}/detail", QuotasClient, "get_quota_set_details"),
    ("GET", f"os-quota-sets/{ID}/defaults", QuotasClient, "get_quota_set"),
    ("PUT", f"os-quota-sets/{ID}", QuotasClient, "update_quota_set"),
    ("DELETE", f"os-quota-sets/{ID}", QuotasClient, "delete_quota"),
    ("GET", f"os-quota-class-sets/{ID}", QuotaClassesClient, "get_quota_class_set"),
    ("PUT", f"os-quota-class-sets/{ID}", QuotaClassesClient, "update_quota_class_set"),
    ("GET", "limits", LimitsClient, "get_limit"),
    ("POST", "os-server-groups", ServerGroupsClient, "create_show_server_group"),
    ("GET", "os-server-groups", ServerGroupsClient, "list_server_groups"),
    ("GET", f"os-server-groups/{ID}", ServerGroupsClient, "create_show_server_group"),
    ("DELETE", f"os-server-groups/{ID}", ServerGroupsClient, "delete_server_group"),
    ("GET", "os-hypervisors", HypervisorClient, "list_search_hypervisors"),
    ("GET", "os-hypervisors/detail", HypervisorClient, "list_hypervisors_detail"),
    ("GET", "os-hypervisors/statistics", hypervisors_v21, "get_hypervisor_statistics"),
    ("GET", f"os-hypervisors/{ID}", HypervisorClient, "get_hypervisor"),
    ("GET", f"os-hypervisors/{ID}/uptime", HypervisorClient, "get_hypervisor_uptime"),
    ("GET", f"os-hypervisors/{ID}/search", hypervisors_v21, "list_search_hypervisors"),
    ("GET", f"os-hypervisors/{ID}/servers", hypervisors_v21, "get_hypervisors_servers"),
    ("GET", "os-hosts", hosts_v21, "list_hosts"),
    ("GET", f"os-hosts/{ID}", hosts_v21, "get_host_detail"),
    ("PUT", f"os-hosts/{ID}", hosts_v21, "update_host"),
    ("GET", "os-services", ServicesClient, "list_services"),
    ("PUT", "os-services/enable", services_v21, "enable_disable_service"),
    ("PUT", "os-services/disable", services_v21, "enable_disable_service"),
    ("PUT", "os-services/disable-log-reason", services_v21, "disable_log_reason"),
    ("PUT", "os-services/force-down", services_v211, "update_forced_down"),
    ("PUT", f"os-services/{ID}", ServicesClient, "update_service"),
    ("GET", "os-aggregates", AggregatesClient, "list_aggregates"),
    ("POST", "os-aggregates", AggregatesClient, "create_aggregate"),
    ("GET", f"os-aggregates/{ID}", AggregatesClient, "get_aggregate"),
    ("PUT", f"os-aggregates/{ID}", AggregatesClient, "update_aggregate"),
    ("DELETE", f"os-aggregates/{ID}", AggregatesClient, "delete_aggregate"),
    ("POST", f"os-aggregates/{ID}/action", AggregatesClient, "aggregate_add_remove_host"),
    ("GET", "os-availability-zone", availability_zone, "list_availability_zone_list"),
    ("GET", "os-availability-zone/detail", availability_zone, "list_availability_zone_list_detail"),
    ("GET", "os-simple-tenant-usage", tenant_usages, "list_tenant_usage"),
    ("GET", f"os-simple-tenant-usage/{ID}", tenant_usages, "get_tenant_usage"),
    ("GET", "os-migrations", MigrationsClient, "list_migrations"),
    ("GET", "extensions", extensions, "list_extensions"),
    ("GET", f"extensions/{ID}", extensions, "show_extension"),
    ("GET", "os-floating-ip-pools", floating_ips, "list_floating_ip_pools"),
    ("GET", "os-floating-ips", floating_ips, "list_floating_ips"),
    ("GET", "os-security-groups", security_groups, "list_security_groups"),
    ("GET", "os-tenant-networks", tenant_networks, "list_tenant_networks"),
    ("GET", f"os-tenant-networks/{ID}", tenant_networks, "get_tenant_network"),
    ("GET", "os-volumes", volumes, "list_volumes"),
    ("GET", "os-volumes/detail", volumes, "list_volumes"),
    ("GET", "os-snapshots", snapshots, "list_snapshots"),
    ("GET", "images", ImagesClient, "list_images"),
    ("GET", "images/detail", ImagesClient, "list_images_details"),
    ("GET", f"images/{ID}", ImagesClient, "get_image"),
]

ACTIONS: dict[str, str] = {
    "rebuild": "rebuild_server_with_admin_pass",
    "rescue": "rescue_server_with_admin_pass",
    "os-getConsoleOutput": "get_console_output",
    "os-getVNCConsole": "get_vnc_console",
    "os-getSerialConsole": "get_vnc_console",
    "createBackup": "create_backup",
    "confirmResize": "server_actions_confirm_resize",
}
"""Schemas of server actions whose responses have a body; the others return 202 without a body."""


class _Answer(dict[str, str]):
    """Response headers by lower-case names, as in httplib2."""

    def __init__(self, answer: TestResponse) -> None:
        super().__init__({name.lower(): value for name, value in answer.headers.items()})
        self.status = answer.status_code
        self["status"] = str(answer.status_code)


def check(method: str, path: str, body: Any, answer: TestResponse) -> None:
    """Raise tempest's InvalidHTTPResponseBody for a successful compute response that does not match its schema."""
    if not path.startswith("/compute") or not 200 <= answer.status_code < 300:
        return
    inside = re.sub(r"^/compute/?(v2\.1/(?=.))?([0-9a-f]{32}/)?", "", path.partition("?")[0]).strip("/")
    version = answer.headers.get("OpenStack-API-Version", "compute 2.1").split()[1]
    schema = _schema(method, inside, version, body)
    parsed = orjson.loads(answer.data) if answer.data else ""
    if isinstance(parsed, dict):
        for links in ("keypairs_links", "migrations_links"):  # part of Nova's API, missing in tempest's schemas
            parsed.pop(links, None)
    if schema is not None and parsed != {"tenant_usage": {}}:  # Nova's response without usage
        RestClient.validate_response(schema, _Answer(answer), parsed)


def _schema(method: str, path: str, version: str, body: Any) -> Any:
    if re.fullmatch(f"servers/{ID}/action", path) and isinstance(body, dict):
        name = next(iter(body), "")
        if name == "createImage":
            return getattr(_module(ImagesClient, version), "create_image", None)
        return getattr(_module(ServersClient, version), ACTIONS.get(name, "server_actions_common_schema"), None)
    if path.startswith("os-hypervisors") and APIVersionRequest(version) >= APIVersionRequest("2.88"):
        return None  # tempest has no schema for 2.88 and above
    for wanted, pattern, schemas, name in TABLE:
        if wanted == method and re.fullmatch(pattern, path):
            return getattr(_module(schemas, version), name, None)
    return None


def _module(schemas: Schemas, version: str) -> Any:
    if isinstance(schemas, ModuleType):
        return schemas
    asked = APIVersionRequest(version)
    for one in schemas.schema_versions_info:
        if asked.matches(APIVersionRequest(one["min"]), APIVersionRequest(one["max"])):
            return one["schema"]
    raise AssertionError(f"tempest has no schemas of {schemas.__name__} at {version}")
