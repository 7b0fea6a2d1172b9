"""Default policies of the volume API, with Cinder's names."""

from app.web.policy import ADMIN, MEMBER_OR_ADMIN, READER_OR_ADMIN, RULE_ANY

RULES: dict[str, str] = {
    "volume:create": MEMBER_OR_ADMIN,
    "volume:get": READER_OR_ADMIN,
    "volume:get_all": READER_OR_ADMIN,
    "volume:update": MEMBER_OR_ADMIN,
    "volume:delete": MEMBER_OR_ADMIN,
    "volume:create_snapshot": MEMBER_OR_ADMIN,
    "volume:get_snapshot": READER_OR_ADMIN,
    "volume:get_all_snapshots": READER_OR_ADMIN,
    "volume:delete_snapshot": MEMBER_OR_ADMIN,
    "volume:get_all_transfers": READER_OR_ADMIN,
    "volume_extension:type_get": READER_OR_ADMIN,
    "volume_extension:type_get_all": READER_OR_ADMIN,
    "volume_extension:type_create": ADMIN,
    "volume_extension:quotas:show": READER_OR_ADMIN,
    "volume_extension:quotas:update": ADMIN,
    "volume_extension:services:index": ADMIN,
    "backup:create": MEMBER_OR_ADMIN,
    "backup:get": READER_OR_ADMIN,
    "backup:get_all": READER_OR_ADMIN,
    "backup:delete": MEMBER_OR_ADMIN,
    "limits_extension:used_limits": RULE_ANY,
    "volume:availability_zone_list": RULE_ANY,
    "volume:extensions_list": RULE_ANY,
}
