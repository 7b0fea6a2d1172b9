"""Policy rules of identity: Keystone's names and its defaults since 2023, in oslo.policy syntax.

Rules refer to target attributes such as `target.user.domain_id`; `identity_api.routes.base.targets` provides them. A
check of a missing attribute fails, so an attribute never matches `None` by accident.

Keystone restricts scopes by `scope_types` of a rule; here the restriction is part of the rule: `NOT_DOMAIN`.
"""

RULE_ANY = "@"
NOT_DOMAIN = "domain_id:None"
ADMIN = f"(role:admin and {NOT_DOMAIN})"
ADMIN_ANY_SCOPE = "role:admin"
SYSTEM_READER = "(role:reader and system_scope:all)"
ADMIN_OR_SYSTEM_READER = f"{ADMIN} or {SYSTEM_READER}"
READER_ANY_SCOPE = f"{ADMIN_ANY_SCOPE} or {SYSTEM_READER}"
OWNER = "user_id:%(user_id)s"
TARGET_USER = "user_id:%(target.user.id)s"

IN_USER_DOMAIN = "domain_id:%(target.user.domain_id)s"
IN_GROUP_DOMAIN = "domain_id:%(target.group.domain_id)s"
IN_PROJECT_DOMAIN = "domain_id:%(target.project.domain_id)s"
MANAGED_ROLES = "('manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s)"
"""Roles that domain managers may assign: at most their own."""


def _in_domain(role: str, *places: str) -> str:
    return f"(role:{role} and {' and '.join(places)})"


def _grants(role: str) -> str:
    """Match grants whose actor and target are in the caller's domain."""
    pairs = (
        _in_domain(role, actor, target)
        for actor in (IN_USER_DOMAIN, IN_GROUP_DOMAIN)
        for target in (IN_PROJECT_DOMAIN, "domain_id:%(target.domain.id)s")
    )
    return f"({' or '.join(pairs)})"


CLOUD_ROLE = "None:%(target.role.domain_id)s"
OWN_ROLE = f"(domain_id:%(target.role.domain_id)s or {CLOUD_ROLE})"
GRANT = (
    f"{ADMIN_ANY_SCOPE} or ({_grants('admin')} and {OWN_ROLE}) or ({_grants('manager')} and {MANAGED_ROLES} "
    f"and {CLOUD_ROLE})"
)
READ_PROJECT = f"{READER_ANY_SCOPE} or {_in_domain('reader', IN_PROJECT_DOMAIN)} or project_id:%(target.project.id)s"
WRITE_PROJECT = f"{ADMIN_ANY_SCOPE} or {_in_domain('manager', IN_PROJECT_DOMAIN)}"
WRITE_USER = f"{ADMIN_ANY_SCOPE} or {_in_domain('manager', IN_USER_DOMAIN)}"
READ_GROUP = f"{READER_ANY_SCOPE} or {_in_domain('reader', IN_GROUP_DOMAIN)}"
WRITE_GROUP = f"{ADMIN_ANY_SCOPE} or {_in_domain('manager', IN_GROUP_DOMAIN)}"
LIST_IN_DOMAIN = f"{READER_ANY_SCOPE} or {_in_domain('reader', 'domain_id:%(target.domain_id)s')}"
CREDENTIAL_OWNER = "user_id:%(target.credential.user_id)s"

RULES: dict[str, str] = {
    # tokens
    "identity:get_auth_catalog": RULE_ANY,
    "identity:get_auth_projects": RULE_ANY,
    "identity:get_auth_domains": RULE_ANY,
    "identity:get_auth_system": RULE_ANY,
    "identity:check_token": f"{READER_ANY_SCOPE} or user_id:%(target.token.user_id)s",
    "identity:validate_token": f"{READER_ANY_SCOPE} or role:service or user_id:%(target.token.user_id)s",
    "identity:revoke_token": f"{ADMIN_ANY_SCOPE} or user_id:%(target.token.user_id)s",
    # domains and projects
    "identity:get_domain": (
        f"{READER_ANY_SCOPE} or domain_id:%(target.domain.id)s or project_domain_id:%(target.domain.id)s"
    ),
    "identity:list_domains": f"{READER_ANY_SCOPE} or role:reader and domain_id:%(target.domain.id)s",
    "identity:create_domain": ADMIN,
    "identity:update_domain": ADMIN,
    "identity:delete_domain": ADMIN,
    "identity:get_project": READ_PROJECT,
    "identity:list_projects": LIST_IN_DOMAIN,
    "identity:list_user_projects": f"{READER_ANY_SCOPE} or {_in_domain('reader', IN_USER_DOMAIN)} or {TARGET_USER}",
    "identity:create_project": WRITE_PROJECT,
    "identity:update_project": WRITE_PROJECT,
    "identity:delete_project": WRITE_PROJECT,
    "identity:list_project_tags": READ_PROJECT,
    "identity:get_project_tag": READ_PROJECT,
    "identity:update_project_tags": WRITE_PROJECT,
    "identity:create_project_tag": WRITE_PROJECT,
    "identity:delete_project_tags": WRITE_PROJECT,
    "identity:delete_project_tag": WRITE_PROJECT,
    # users and groups
    "identity:get_user": f"{READER_ANY_SCOPE} or {_in_domain('reader', IN_USER_DOMAIN)} or {TARGET_USER}",
    "identity:list_users": LIST_IN_DOMAIN,
    "identity:create_user": WRITE_USER,
    "identity:update_user": WRITE_USER,
    "identity:delete_user": WRITE_USER,
    "identity:list_groups_for_user": f"{READER_ANY_SCOPE} or {_in_domain('reader', IN_USER_DOMAIN)} or {OWNER}",
    "identity:get_group": READ_GROUP,
    "identity:list_groups": LIST_IN_DOMAIN,
    "identity:create_group": WRITE_GROUP,
    "identity:update_group": WRITE_GROUP,
    "identity:delete_group": WRITE_GROUP,
    "identity:list_users_in_group": READ_GROUP,
    "identity:check_user_in_group": (f"{READER_ANY_SCOPE} or {_in_domain('reader', IN_GROUP_DOMAIN, IN_USER_DOMAIN)}"),
    "identity:add_user_to_group": f"{ADMIN_ANY_SCOPE} or {_in_domain('manager', IN_GROUP_DOMAIN, IN_USER_DOMAIN)}",
    "identity:remove_user_from_group": (
        f"{ADMIN_ANY_SCOPE} or {_in_domain('manager', IN_GROUP_DOMAIN, IN_USER_DOMAIN)}"
    ),
    # roles
    "identity:get_role": f"{READER_ANY_SCOPE} or (role:manager and {MANAGED_ROLES})",
    "identity:list_roles": f"{READER_ANY_SCOPE} or (role:manager and not {NOT_DOMAIN})",
    "identity:create_role": ADMIN,
    "identity:update_role": ADMIN,
    "identity:delete_role": ADMIN,
    "identity:get_domain_role": ADMIN_OR_SYSTEM_READER,
    "identity:list_domain_roles": ADMIN_OR_SYSTEM_READER,
    "identity:create_domain_role": ADMIN,
    "identity:update_domain_role": ADMIN,
    "identity:delete_domain_role": ADMIN,
    "identity:get_implied_role": ADMIN_OR_SYSTEM_READER,
    "identity:list_implied_roles": ADMIN_OR_SYSTEM_READER,
    "identity:create_implied_role": ADMIN,
    "identity:delete_implied_role": ADMIN,
    "identity:list_role_inference_rules": ADMIN_OR_SYSTEM_READER,
    "identity:check_implied_role": ADMIN_OR_SYSTEM_READER,
    # assignments
    "identity:check_grant": f"{READER_ANY_SCOPE} or ({_grants('reader')} and {OWN_ROLE})",
    "identity:list_grants": f"{READER_ANY_SCOPE} or {_grants('reader')}",
    "identity:create_grant": GRANT,
    "identity:revoke_grant": GRANT,
    "identity:check_system_grant_for_user": ADMIN_OR_SYSTEM_READER,
    "identity:list_system_grants_for_user": ADMIN_OR_SYSTEM_READER,
    "identity:create_system_grant_for_user": ADMIN,
    "identity:revoke_system_grant_for_user": ADMIN,
    "identity:check_system_grant_for_group": ADMIN_OR_SYSTEM_READER,
    "identity:list_system_grants_for_group": ADMIN_OR_SYSTEM_READER,
    "identity:create_system_grant_for_group": ADMIN,
    "identity:revoke_system_grant_for_group": ADMIN,
    "identity:list_role_assignments": LIST_IN_DOMAIN,
    "identity:list_role_assignments_for_tree": LIST_IN_DOMAIN,
    # application credentials
    "identity:get_application_credential": f"{ADMIN_OR_SYSTEM_READER} or {OWNER}",
    "identity:list_application_credentials": f"{ADMIN_OR_SYSTEM_READER} or {OWNER}",
    "identity:create_application_credential": OWNER,
    "identity:delete_application_credential": f"{ADMIN} or {OWNER}",
    "identity:get_access_rule": f"{SYSTEM_READER} or {TARGET_USER}",
    "identity:list_access_rules": f"{SYSTEM_READER} or {TARGET_USER}",
    "identity:delete_access_rule": f"(role:admin and system_scope:all) or {TARGET_USER}",
    # catalog
    "identity:get_region": RULE_ANY,
    "identity:list_regions": RULE_ANY,
    "identity:create_region": ADMIN,
    "identity:update_region": ADMIN,
    "identity:delete_region": ADMIN,
    "identity:get_service": ADMIN_OR_SYSTEM_READER,
    "identity:list_services": ADMIN_OR_SYSTEM_READER,
    "identity:create_service": ADMIN,
    "identity:update_service": ADMIN,
    "identity:delete_service": ADMIN,
    "identity:get_endpoint": ADMIN_OR_SYSTEM_READER,
    "identity:list_endpoints": ADMIN_OR_SYSTEM_READER,
    "identity:create_endpoint": ADMIN,
    "identity:update_endpoint": ADMIN,
    "identity:delete_endpoint": ADMIN,
    # limits
    "identity:get_limit_model": RULE_ANY,
    "identity:get_limit": (
        f"{ADMIN_OR_SYSTEM_READER} or domain_id:%(target.limit.domain_id)s or project_id:%(target.limit.project_id)s"
    ),
    "identity:list_limits": RULE_ANY,
    "identity:create_limits": ADMIN,
    "identity:update_limit": ADMIN,
    "identity:delete_limit": ADMIN,
    "identity:get_registered_limit": RULE_ANY,
    "identity:list_registered_limits": RULE_ANY,
    "identity:create_registered_limits": ADMIN,
    "identity:update_registered_limit": ADMIN,
    "identity:delete_registered_limit": ADMIN,
    # credentials
    "identity:get_credential": f"{READER_ANY_SCOPE} or {CREDENTIAL_OWNER}",
    "identity:list_credentials": f"{READER_ANY_SCOPE} or {CREDENTIAL_OWNER}",
    "identity:create_credential": f"{ADMIN_ANY_SCOPE} or {CREDENTIAL_OWNER}",
    "identity:update_credential": f"{ADMIN_ANY_SCOPE} or {CREDENTIAL_OWNER}",
    "identity:delete_credential": f"{ADMIN_ANY_SCOPE} or {CREDENTIAL_OWNER}",
    "identity:ec2_get_credential": f"{ADMIN_OR_SYSTEM_READER} or {CREDENTIAL_OWNER}",
    "identity:ec2_list_credentials": f"{ADMIN_OR_SYSTEM_READER} or {OWNER}",
    "identity:ec2_create_credential": f"{ADMIN} or (role:member and {CREDENTIAL_OWNER})",
    "identity:ec2_delete_credential": f"{ADMIN} or (role:member and {CREDENTIAL_OWNER})",
}
