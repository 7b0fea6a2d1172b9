"""Drop the triggers that incremented the revision of servers; `network_api.server_revisions` does so since.

Triggers are invisible in the code that changes ports and had to be written for each kind of database.
"""

from alembic import op

revision = "0071_port_triggers"
down_revision = "0070_host_routes"
branch_labels = None
depends_on = None

INCREMENT = "UPDATE servers SET revision = revision + 1 WHERE id"
COLUMNS = "device_id, mac_address, ip_address, network_id, ipv4_address"
SQLITE = (
    f"CREATE TRIGGER ports_made AFTER INSERT ON ports WHEN NEW.device_id <> '' BEGIN {INCREMENT} = NEW.device_id; END",
    f"CREATE TRIGGER ports_gone AFTER DELETE ON ports WHEN OLD.device_id <> '' BEGIN {INCREMENT} = OLD.device_id; END",
    f"CREATE TRIGGER ports_changed AFTER UPDATE OF {COLUMNS} ON ports "
    f"BEGIN {INCREMENT} IN (OLD.device_id, NEW.device_id); END",
    "CREATE TRIGGER networks_renamed AFTER UPDATE OF name ON networks WHEN OLD.name <> NEW.name "
    f"BEGIN {INCREMENT} IN (SELECT device_id FROM ports WHERE network_id = NEW.id); END",
)
POSTGRESQL = (
    "CREATE FUNCTION server_shown() RETURNS trigger AS $$ BEGIN "
    f"IF TG_OP <> 'INSERT' THEN {INCREMENT} = OLD.device_id AND OLD.device_id <> ''; END IF; "
    f"IF TG_OP <> 'DELETE' THEN {INCREMENT} = NEW.device_id AND NEW.device_id <> ''; END IF; "
    "RETURN NULL; END $$ LANGUAGE plpgsql",
    "CREATE FUNCTION network_shown() RETURNS trigger AS $$ BEGIN "
    f"{INCREMENT} IN (SELECT device_id FROM ports WHERE network_id = NEW.id); RETURN NULL; END $$ LANGUAGE plpgsql",
    f"CREATE TRIGGER ports_changed AFTER INSERT OR DELETE OR UPDATE OF {COLUMNS} ON ports "
    "FOR EACH ROW EXECUTE FUNCTION server_shown()",
    "CREATE TRIGGER networks_renamed AFTER UPDATE OF name ON networks "
    "FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION network_shown()",
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER ports_changed ON ports")
        op.execute("DROP TRIGGER networks_renamed ON networks")
        op.execute("DROP FUNCTION server_shown()")
        op.execute("DROP FUNCTION network_shown()")
    else:
        for trigger in ("ports_made", "ports_gone", "ports_changed", "networks_renamed"):
            op.execute(f"DROP TRIGGER {trigger}")


def downgrade() -> None:
    for statement in POSTGRESQL if op.get_bind().dialect.name == "postgresql" else SQLITE:
        op.execute(statement)
