"""Valid request bodies for the fuzzer. `{image}` is replaced by the id of an image, `{port}` of a port."""

from typing import Any

V21 = "application/openstack-images-v2.1-json-patch"
_NAMED = {"name": "x", "description": "y"}
_SERVER = {"name": "x", "imageRef": "{image}", "flavorRef": "1"}
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kGvEHQPkTlQpDD9Zy0aWYsnYb4p1zFSJkAa8b3Q7l a@b"
_DOCUMENT = {"type": "ec2", "blob": '{"access": "a", "secret": "b"}', "user_id": "{user}", "project_id": "{project}"}
_RULE = {"path": "/v2.1/servers", "method": "GET", "service": "compute"}

ACTIONS: list[Any] = [
    {"os-start": None},
    {"os-stop": None},
    {"reboot": {"type": "HARD"}},
    {"pause": None},
    {"unpause": None},
    {"suspend": None},
    {"resume": None},
    {"lock": {"locked_reason": "x"}},
    {"unlock": None},
    {"rescue": {"adminPass": "x", "rescue_image_ref": "{image}"}},
    {"unrescue": None},
    {"rebuild": {"imageRef": "{image}", "name": "y", "metadata": {"a": "b"}, "user_data": "eA==", "key_name": None}},
    {"resize": {"flavorRef": "2", "OS-DCF:diskConfig": "AUTO"}},
    {"confirmResize": None},
    {"revertResize": None},
    {"createImage": {"name": "snap", "metadata": {"a": "b"}}},
    {"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}},
    {"shelve": None},
    {"shelveOffload": None},
    {"unshelve": {"availability_zone": "nova"}},
    {"forceDelete": None},
    {"restore": None},
    {"changePassword": {"adminPass": "x"}},
    {"os-resetState": {"state": "active"}},
    {"os-getConsoleOutput": {"length": 5}},
    {"os-getVNCConsole": {"type": "novnc"}},
    {"os-getSerialConsole": {"type": "serial"}},
    {"trigger_crash_dump": None},
    {"migrate": {"host": None}},
    {"os-migrateLive": {"host": None, "block_migration": "auto"}},
    {"evacuate": {"host": "fake-host"}},
    {"addSecurityGroup": {"name": "default"}},
    {"addFixedIp": {"networkId": "{network}"}},
    {"removeFixedIp": {"address": "fd00::1"}},
    {"addFloatingIp": {"address": "10.0.0.1"}},
]

BODIES: dict[str, list[Any]] = {
    "POST /compute/v2.1/flavors": [
        {"flavor": {"name": "f", "vcpus": 1, "ram": 64, "disk": 1, "id": "f1", "swap": 0, "rxtx_factor": 1.0}}
    ],
    "PUT /compute/v2.1/flavors/<flavor_id>": [{"flavor": {"description": "x"}}],
    "POST /compute/v2.1/flavors/<flavor_id>/action": [
        {"addTenantAccess": {"tenant": "{project}"}},
        {"removeTenantAccess": {"tenant": "{project}"}},
    ],
    "POST /compute/v2.1/flavors/<flavor_id>/os-extra_specs": [{"extra_specs": {"hw:cpu_sockets": "1", "disk": "ssd"}}],
    "PUT /compute/v2.1/flavors/<flavor_id>/os-extra_specs/<key>": [{"hw:cpu_sockets": "1"}],
    "PUT /compute/v2.1/images/<image_id>/metadata": [{"metadata": {"a": "b"}}],
    "POST /compute/v2.1/images/<image_id>/metadata": [{"metadata": {"a": "b"}}],
    "PUT /compute/v2.1/images/<image_id>/metadata/<key>": [{"meta": {"key": "b"}}],
    "POST /compute/v2.1/os-aggregates": [{"aggregate": {"name": "x", "availability_zone": "z"}}],
    "PUT /compute/v2.1/os-aggregates/<aggregate_id>": [{"aggregate": {"name": "y"}}],
    "POST /compute/v2.1/os-aggregates/<aggregate_id>/action": [
        {"add_host": {"host": "fake-host"}},
        {"remove_host": {"host": "fake-host"}},
        {"set_metadata": {"metadata": {"a": "b"}}},
    ],
    "PUT /compute/v2.1/os-hosts/<name>": [{"status": "enable"}, {"maintenance_mode": "disable"}],
    "POST /compute/v2.1/os-keypairs": [{"keypair": {"name": "k", "public_key": _KEY, "type": "ssh"}}],
    "PUT /compute/v2.1/os-quota-class-sets/<name>": [{"quota_class_set": {"instances": 5}}],
    "PUT /compute/v2.1/os-quota-sets/<project_id>": [{"quota_set": {"instances": 50, "cores": "50", "force": True}}],
    "POST /compute/v2.1/os-server-groups": [
        {"server_group": {"name": "g", "policies": ["affinity"]}},
        {"server_group": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}}},
    ],
    "PUT /compute/v2.1/os-services/<service_id>": [{"status": "enabled", "forced_down": False}],
    "PUT /compute/v2.1/os-services/enable": [{"host": "fake-host", "binary": "nova-compute"}],
    "POST /compute/v2.1/servers": [
        {"server": _SERVER},
        {
            "server": {
                **_SERVER,
                "networks": [{"uuid": "{network}", "fixed_ip": "fd00::5", "tag": "t"}],
                "metadata": {"a": "b"},
                "tags": ["t"],
                "description": "d",
                "hostname": "h",
                "user_data": "eA==",
                "key_name": "k",
                "config_drive": True,
                "min_count": 1,
                "max_count": 2,
                "availability_zone": "nova",
                "adminPass": "x",
                "personality": [],
                "security_groups": [{"name": "default"}],
                "OS-DCF:diskConfig": "AUTO",
                "accessIPv6": "fd00::1",
                "block_device_mapping_v2": [
                    {"boot_index": 0, "uuid": "{image}", "source_type": "image", "destination_type": "local"}
                ],
            },
            "os:scheduler_hints": {"group": "{server_group}", "same_host": ["{server}"]},
        },
        {"server": {**_SERVER, "networks": "auto"}},
    ],
    "PUT /compute/v2.1/servers/<server_id>": [{"server": {"name": "y", "description": None, "accessIPv4": "10.0.0.1"}}],
    "POST /compute/v2.1/servers/<server_id>/action": ACTIONS,
    "PUT /compute/v2.1/servers/<server_id>/metadata": [{"metadata": {"a": "b"}}],
    "POST /compute/v2.1/servers/<server_id>/metadata": [{"metadata": {"a": "b"}}],
    "PUT /compute/v2.1/servers/<server_id>/metadata/<key>": [{"meta": {"key": "b"}}],
    "POST /compute/v2.1/servers/<server_id>/migrations/<migration_id>/action": [{"force_complete": None}],
    "POST /compute/v2.1/servers/<server_id>/os-interface": [
        {"interfaceAttachment": {"net_id": "{network}", "fixed_ips": [{"ip_address": "fd00::7"}], "tag": "t"}},
        {"interfaceAttachment": {"port_id": "{port}"}},
    ],
    "POST /compute/v2.1/servers/<server_id>/remote-consoles": [
        {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    ],
    "PUT /compute/v2.1/servers/<server_id>/tags": [{"tags": ["a", "b"]}],
    "POST /identity/v3/auth/tokens": [
        {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "nobody", "domain": {"id": "default"}, "password": "x"}},
                },
                "scope": {"project": {"name": "demo", "domain": {"id": "default"}}},
            }
        },
        {"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {"system": {"all": True}}}},
        {
            "auth": {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": {"id": "{application_credential}", "secret": "x"},
                }
            }
        },
    ],
    "POST /identity/v3/credentials": [{"credential": _DOCUMENT}],
    "PATCH /identity/v3/credentials/<credential_id>": [{"credential": {"blob": "x"}}],
    "POST /identity/v3/domains": [{"domain": {**_NAMED, "enabled": True, "tags": ["a"], "options": {}}}],
    "PATCH /identity/v3/domains/<domain_id>": [{"domain": {"description": "z"}}],
    "POST /identity/v3/endpoints": [
        {
            "endpoint": {
                "service_id": "{service}",
                "interface": "public",
                "url": "http://x/%(project_id)s",
                "region_id": "{region}",
            }
        }
    ],
    "PATCH /identity/v3/endpoints/<endpoint_id>": [{"endpoint": {"url": "http://y", "enabled": True}}],
    "POST /identity/v3/groups": [{"group": {**_NAMED, "domain_id": "default"}}],
    "PATCH /identity/v3/groups/<group_id>": [{"group": {"description": "z"}}],
    "POST /identity/v3/limits": [
        {"limits": [{"service_id": "{service}", "project_id": "{project}", "resource_name": "x", "resource_limit": 5}]}
    ],
    "PATCH /identity/v3/limits/<limit_id>": [{"limit": {"resource_limit": 6}}],
    "POST /identity/v3/projects": [
        {"project": {**_NAMED, "domain_id": "default", "parent_id": "{project}", "tags": ["t"], "options": {}}}
    ],
    "PATCH /identity/v3/projects/<project_id>": [{"project": {"description": "z"}}],
    "PUT /identity/v3/projects/<project_id>/tags": [{"tags": ["a", "b"]}],
    "POST /identity/v3/regions": [{"region": {"id": "r", "description": "x", "parent_region_id": "RegionOne"}}],
    "PUT /identity/v3/regions/<region_id>": [{"region": {"description": "x"}}],
    "PATCH /identity/v3/regions/<region_id>": [{"region": {"description": "y", "parent_region_id": None}}],
    "POST /identity/v3/registered_limits": [
        {"registered_limits": [{"service_id": "{service}", "resource_name": "x", "default_limit": 5}]}
    ],
    "PATCH /identity/v3/registered_limits/<registered_limit_id>": [{"registered_limit": {"default_limit": 6}}],
    "POST /identity/v3/roles": [{"role": {**_NAMED, "domain_id": None, "options": {"immutable": False}}}],
    "PATCH /identity/v3/roles/<role_id>": [{"role": {"description": "z"}}],
    "POST /identity/v3/services": [{"service": {"name": "s", "type": "t", "enabled": True}}],
    "PATCH /identity/v3/services/<service_id>": [{"service": {"name": "t"}}],
    "POST /identity/v3/users": [
        {"user": {"name": "u", "password": "secret", "domain_id": "default", "email": "a@b", "enabled": True}}
    ],
    "PATCH /identity/v3/users/<user_id>": [{"user": {"description": "z", "options": {"lock_password": False}}}],
    "POST /identity/v3/users/<user_id>/application_credentials": [
        {
            "application_credential": {
                "name": "a",
                "roles": [{"name": "member"}],
                "expires_at": "2040-01-01T00:00:00",
                "access_rules": [_RULE],
                "unrestricted": False,
            }
        }
    ],
    "POST /identity/v3/users/<user_id>/credentials/OS-EC2": [{"tenant_id": "{project}"}],
    "POST /identity/v3/users/<user_id>/password": [{"user": {"password": "x", "original_password": "y"}}],
    "POST /image/v2/images": [
        {
            "name": "i",
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "private",
            "tags": ["t"],
            "p": "q",
        }
    ],
    "PATCH /image/v2/images/<image_id>": [
        [
            {"op": "replace", "path": "/name", "value": "y"},
            {"op": "add", "path": "/p", "value": "q"},
            {"op": "remove", "path": "/p"},
        ],
        [{"op": "replace", "path": "/visibility", "value": "community"}],
        [{"op": "add", "path": "/locations/-", "value": {"url": "http://x", "metadata": {}}}],
    ],
    "POST /image/v2/images/<image_id>/import": [
        {"method": {"name": "web-download", "uri": "http://example.com/x"}},
        {"method": {"name": "glance-direct"}, "all_stores": True, "stores": ["x"]},
    ],
    "POST /image/v2/images/<image_id>/locations": [{"url": "http://x", "validation_data": {}}],
    "POST /image/v2/images/<image_id>/members": [{"member": "{project}"}],
    "PUT /image/v2/images/<image_id>/members/<project_id>": [{"status": "accepted"}],
    "POST /image/v2/tasks": [{"type": "import", "input": {}}],
    "POST /network/v2.0/networks": [
        {"network": {"name": "n", "mtu": 1400, "shared": False, "port_security_enabled": True, "isolated": True}},
        {"networks": [{"name": "a"}, {"name": "b"}]},
    ],
    "PUT /network/v2.0/networks/<network_id>": [{"network": {"name": "m", "description": "x"}}],
    "POST /network/v2.0/subnets": [
        {
            "subnet": {
                "network_id": "{network}",
                "ip_version": 6,
                "cidr": "fd00:1::/64",
                "name": "s",
                "dns_nameservers": ["2001:4860:4860::8888"],
                "ipv6_ra_mode": "slaac",
                "ipv6_address_mode": "slaac",
                "gateway_ip": None,
                "host_routes": [],
                "allocation_pools": [],
                "subnetpool_id": None,
            }
        }
    ],
    "PUT /network/v2.0/subnets/<subnet_id>": [{"subnet": {"name": "t", "dns_nameservers": ["2001:4860:4860::8888"]}}],
    "POST /network/v2.0/ports": [
        {
            "port": {
                "network_id": "{network}",
                "name": "p",
                "mac_address": "02:00:00:00:00:05",
                "fixed_ips": [{"subnet_id": "{subnet}", "ip_address": "fd00::9"}],
                "allowed_address_pairs": [{"ip_address": "fd00::/80"}],
                "device_id": "x",
                "admin_state_up": True,
                "security_groups": [],
            }
        },
        {"port": {"network_id": "{network}"}},
    ],
    "PUT /network/v2.0/ports/<port_id>": [
        {"port": {"name": "q", "allowed_address_pairs": [], "device_id": "", "ipv4_address": "192.0.2.1"}}
    ],
    "PUT /network/v2.0/quotas/<project_id>": [{"quota": {"network": 20, "port": 50}}],
    "POST /network/v2.0/subnetpools": [
        {"subnetpool": {"name": "p", "prefixes": ["fd00:9::/48"], "default_prefixlen": 64, "is_default": False}}
    ],
    "PUT /network/v2.0/subnetpools/<pool_id>": [{"subnetpool": {"name": "q", "prefixes": ["fd00:9::/48"]}}],
    "PUT /network/v2.0/networks/<key>/tags": [{"tags": ["a"]}],
    "PUT /network/v2.0/ports/<key>/tags": [{"tags": ["a"]}],
    "POST /network/v2.0/floatingips": [{"floatingip": {"floating_network_id": "{network}", "port_id": "{port}"}}],
    "POST /network/v2.0/routers": [{"router": {"name": "r", "external_gateway_info": None}}],
    "POST /volume/v3/<project_id>/volumes": [{"volume": {"size": 1, "name": "v", "imageRef": "{image}"}}],
    "POST /volume/v3/<project_id>/volumes/<volume_id>/action": [
        {"os-extend": {"new_size": 2}},
        {"os-set_bootable": {"bootable": True}},
        {"os-reset_status": {"status": "available"}},
    ],
    "POST /volume/v3/<project_id>/snapshots": [{"snapshot": {"volume_id": "{volume}", "name": "s", "force": True}}],
    "POST /volume/v3/<project_id>/backups": [{"backup": {"volume_id": "{volume}", "name": "b"}}],
}
