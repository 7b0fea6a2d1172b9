"""Create the identity tables: domains and projects, users, groups, roles, credentials, catalog, limits."""

import sqlalchemy as sa
from alembic import op

from app.db.database import Json, UtcDateTime

revision = "0001_identity"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "identity_epoch",
    "identity_projects",
    "identity_regions",
    "identity_revoked_tokens",
    "identity_roles",
    "identity_services",
    "identity_assignments",
    "identity_endpoints",
    "identity_groups",
    "identity_implications",
    "identity_registered_limits",
    "identity_users",
    "identity_access_rules",
    "identity_application_credentials",
    "identity_credentials",
    "identity_limits",
    "identity_memberships",
)
"""In the order in which they refer to each other."""


def upgrade() -> None:
    op.create_table(
        "identity_epoch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity_epoch"),
    )
    op.create_table(
        "identity_projects",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("is_domain", sa.Boolean(), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=True),
        sa.Column("parent_id", sa.String(length=64), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("tags", Json, nullable=False),
        sa.Column("options", Json, nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["identity_projects.id"], name="fk_identity_projects_domain_id_identity_projects"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["identity_projects.id"], name="fk_identity_projects_parent_id_identity_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_projects"),
        sa.UniqueConstraint("domain_id", "name", name="uq_identity_projects_domain_id_name"),
    )
    op.create_index("ix_identity_projects_parent_id", "identity_projects", ["parent_id"], unique=False)
    op.create_index(
        "uq_identity_projects_domain_name",
        "identity_projects",
        ["name"],
        unique=True,
        sqlite_where=sa.text("is_domain"),
        postgresql_where=sa.text("is_domain"),
    )
    op.create_table(
        "identity_regions",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("parent_region_id", sa.String(length=255), nullable=True),
        sa.Column("extra", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_region_id"], ["identity_regions.id"], name="fk_identity_regions_parent_region_id_identity_regions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_regions"),
    )
    op.create_table(
        "identity_revoked_tokens",
        sa.Column("audit_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_identity_revoked_tokens"),
    )
    op.create_index("ix_identity_revoked_tokens_expires_at", "identity_revoked_tokens", ["expires_at"], unique=False)
    op.create_table(
        "identity_roles",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("options", Json, nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity_roles"),
        sa.UniqueConstraint("domain_id", "name", name="uq_identity_roles_domain_id_name"),
    )
    op.create_table(
        "identity_services",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity_services"),
    )
    op.create_table(
        "identity_assignments",
        sa.Column("actor_kind", sa.String(length=8), nullable=False),
        sa.Column("actor_id", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=8), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("role_id", sa.String(length=64), nullable=False),
        sa.Column("inherited", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["role_id"],
            ["identity_roles.id"],
            name="fk_identity_assignments_role_id_identity_roles",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "actor_kind", "actor_id", "target_kind", "target_id", "role_id", "inherited", name="pk_identity_assignments"
        ),
    )
    op.create_index("ix_identity_assignments_role_id", "identity_assignments", ["role_id"], unique=False)
    op.create_index(
        "ix_identity_assignments_target", "identity_assignments", ["target_kind", "target_id"], unique=False
    )
    op.create_table(
        "identity_endpoints",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("region_id", sa.String(length=255), nullable=True),
        sa.Column("interface", sa.String(length=8), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["region_id"], ["identity_regions.id"], name="fk_identity_endpoints_region_id_identity_regions"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["identity_services.id"],
            name="fk_identity_endpoints_service_id_identity_services",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_endpoints"),
    )
    op.create_index("ix_identity_endpoints_region_id", "identity_endpoints", ["region_id"], unique=False)
    op.create_index("ix_identity_endpoints_service_id", "identity_endpoints", ["service_id"], unique=False)
    op.create_table(
        "identity_groups",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["identity_projects.id"], name="fk_identity_groups_domain_id_identity_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_groups"),
        sa.UniqueConstraint("domain_id", "name", name="uq_identity_groups_domain_id_name"),
    )
    op.create_table(
        "identity_implications",
        sa.Column("prior_id", sa.String(length=64), nullable=False),
        sa.Column("implied_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["implied_id"],
            ["identity_roles.id"],
            name="fk_identity_implications_implied_id_identity_roles",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["prior_id"],
            ["identity_roles.id"],
            name="fk_identity_implications_prior_id_identity_roles",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("prior_id", "implied_id", name="pk_identity_implications"),
    )
    op.create_index("ix_identity_implications_implied_id", "identity_implications", ["implied_id"], unique=False)
    op.create_table(
        "identity_registered_limits",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("region_id", sa.String(length=255), nullable=True),
        sa.Column("resource_name", sa.String(length=255), nullable=False),
        sa.Column("default_limit", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["region_id"], ["identity_regions.id"], name="fk_identity_registered_limits_region_id_identity_regions"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"], ["identity_services.id"], name="fk_identity_registered_limits_service_id_identity_services"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_registered_limits"),
    )
    op.create_table(
        "identity_users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("default_project_id", sa.String(length=64), nullable=True),
        sa.Column("password", sa.String(length=255), nullable=True),
        sa.Column("password_changed_at", UtcDateTime, nullable=True),
        sa.Column("password_expires_at", UtcDateTime, nullable=True),
        sa.Column("failed_logins", sa.Integer(), nullable=False),
        sa.Column("failed_at", UtcDateTime, nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("options", Json, nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["identity_projects.id"], name="fk_identity_users_domain_id_identity_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_users"),
        sa.UniqueConstraint("domain_id", "name", name="uq_identity_users_domain_id_name"),
    )
    op.create_index("ix_identity_users_default_project_id", "identity_users", ["default_project_id"], unique=False)
    op.create_table(
        "identity_access_rules",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("service", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["identity_users.id"],
            name="fk_identity_access_rules_user_id_identity_users",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_access_rules"),
        sa.UniqueConstraint(
            "user_id", "service", "method", "path", name="uq_identity_access_rules_user_id_service_method_path"
        ),
    )
    op.create_table(
        "identity_application_credentials",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=255), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=True),
        sa.Column("unrestricted", sa.Boolean(), nullable=False),
        sa.Column("role_ids", Json, nullable=False),
        sa.Column("access_rule_ids", Json, nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["identity_projects.id"],
            name="fk_identity_application_credentials_project",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["identity_users.id"],
            name="fk_identity_application_credentials_user_id_identity_users",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_application_credentials"),
        sa.UniqueConstraint("user_id", "name", name="uq_identity_application_credentials_user_id_name"),
    )
    op.create_index(
        "ix_identity_application_credentials_project_id",
        "identity_application_credentials",
        ["project_id"],
        unique=False,
    )
    op.create_table(
        "identity_credentials",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("extra", Json, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["identity_users.id"],
            name="fk_identity_credentials_user_id_identity_users",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_credentials"),
    )
    op.create_index("ix_identity_credentials_user_id", "identity_credentials", ["user_id"], unique=False)
    op.create_table(
        "identity_limits",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("registered_limit_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=True),
        sa.Column("domain_id", sa.String(length=64), nullable=True),
        sa.Column("resource_limit", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id"],
            ["identity_projects.id"],
            name="fk_identity_limits_domain_id_identity_projects",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["identity_projects.id"],
            name="fk_identity_limits_project_id_identity_projects",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["registered_limit_id"], ["identity_registered_limits.id"], name="fk_identity_limits_registered_limit"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity_limits"),
        sa.UniqueConstraint(
            "registered_limit_id", "domain_id", name="uq_identity_limits_registered_limit_id_domain_id"
        ),
        sa.UniqueConstraint(
            "registered_limit_id", "project_id", name="uq_identity_limits_registered_limit_id_project_id"
        ),
    )
    op.create_table(
        "identity_memberships",
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("group_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["identity_groups.id"],
            name="fk_identity_memberships_group_id_identity_groups",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["identity_users.id"],
            name="fk_identity_memberships_user_id_identity_users",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "group_id", name="pk_identity_memberships"),
    )
    op.create_index("ix_identity_memberships_group_id", "identity_memberships", ["group_id"], unique=False)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
