"""Default policy rules of the image API, with Glance's names and defaults.

The policy target of an image has `project_id` and `owner` (both the owning project), `visibility`, and `member_id` (the
caller's project if the image is shared with it).
"""

from app.web.policy import ADMIN, MEMBER_OR_ADMIN, READER_OR_ADMIN, RULE_ANY

_SEEN = 'project_id:%(project_id)s or project_id:%(member_id)s or "community":%(visibility)s or "public":%(visibility)s'
_MEMBER_ITSELF = "role:member and project_id:%(member_id)s"

RULES: dict[str, str] = {
    "add_image": MEMBER_OR_ADMIN,
    "delete_image": MEMBER_OR_ADMIN,
    "get_image": f'({ADMIN}) or (role:reader and ({_SEEN} or "shared":%(visibility)s))',
    "get_images": READER_OR_ADMIN,
    "modify_image": MEMBER_OR_ADMIN,
    "publicize_image": ADMIN,
    "communitize_image": MEMBER_OR_ADMIN,
    "download_image": f'({ADMIN}) or (role:member and ({_SEEN} or "shared":%(visibility)s))',
    "upload_image": MEMBER_OR_ADMIN,
    "get_image_location": READER_OR_ADMIN,
    "set_image_location": MEMBER_OR_ADMIN,
    "delete_image_location": ADMIN,
    "add_member": MEMBER_OR_ADMIN,
    "delete_member": MEMBER_OR_ADMIN,
    "get_member": f"{READER_OR_ADMIN} or (role:reader and project_id:%(member_id)s)",
    "get_members": f"{READER_OR_ADMIN} or (role:reader and project_id:%(member_id)s)",
    "modify_member": f"({ADMIN}) or ({_MEMBER_ITSELF})",
    "deactivate": MEMBER_OR_ADMIN,
    "reactivate": MEMBER_OR_ADMIN,
    "copy_image": ADMIN,
    "get_task": READER_OR_ADMIN,
    "get_tasks": READER_OR_ADMIN,
    "add_task": ADMIN,
    "tasks_api_access": ADMIN,
    "get_metadef_namespaces": RULE_ANY,
    "list_metadef_resource_types": RULE_ANY,
    "get_image_schema": RULE_ANY,
    "get_import_info": RULE_ANY,
    "get_usage": READER_OR_ADMIN,
}
