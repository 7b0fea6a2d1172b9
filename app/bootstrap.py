"""Bootstrap: migrates the database and creates the first users, catalog, flavors, network and clouds.yaml.

`sixstack up` runs it as `python -m app.bootstrap`, in its own process, which keeps the supervisor's memory small.
"""

import os
import sys
from datetime import datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from app.core import installation
from app.core.clock import SystemClock
from app.core.errors import OperatorError
from app.core.installation import Installation
from app.core.reserved import reserved_prefixes
from app.core.settings import Settings
from app.db.database import Database, error_reason, is_unreachable


def main() -> int:
    """Prepare the database configured in SIXSTACK_*; problems for the operator are one line and exit status 1."""
    settings = Settings.read({})
    try:
        prepare(settings, installation.load(settings))
    except OperatorError as error:
        print(f"sixstack: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if not is_unreachable(error):
            raise
        print(f"sixstack: the database cannot be reached: {error_reason(error)}", file=sys.stderr)
        return 1
    return 0


def prepare(settings: Settings, chosen: Installation) -> None:
    """Migrate and populate the database; idempotent. clouds.yaml is written before its passwords are committed.

    Raises OperatorError when the database belongs to a cloud whose keys are missing here, and for invalid reserved
    prefixes.
    """
    from app.security import keys, secret_cipher
    from compute_api.access import host_credentials
    from compute_api.hosts import liveness

    reserved_prefixes(settings)
    database = Database(settings.database, synchronous=settings.sqlite_synchronous)
    try:
        migrate(database)
        with database.transaction() as session:
            if settings.broker_url is None:
                liveness.remove_watermark(session)
            clouds = bootstrap(session, SystemClock().now(), settings, chosen)
            if clouds is not None:
                write_clouds(settings, clouds)
        if clouds is None and not database.is_sqlite and not keys.directory(settings).exists():
            raise OperatorError(
                f"the keys of this cloud's tokens are not in {settings.state / 'keys'}: copy keys/ and "
                "installation.json from the first machine of the cloud, or mount its keys/ there."
            )
        keys.ensure_keys(keys.directory(settings))
        keys.ensure_keys(secret_cipher.directory(settings))
        with database.transaction() as session:
            host_credentials.seal_plain_hashes(session, secret_cipher.SecretCipher(settings), SystemClock().now())
        if clouds is None:
            refresh_clouds(settings)
    finally:
        database.dispose()


def migrate(database: Database) -> None:
    """Upgrade the schema to the newest revision if necessary."""
    from alembic.migration import MigrationContext

    with database.writer.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
    if current == head():
        return
    with database.writer.begin() as connection:
        upgrade(connection)


def upgrade(connection: Connection) -> None:
    """Upgrade the schema in the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def head() -> str:
    """Return the newest schema revision."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    found = ScriptDirectory.from_config(config).get_current_head()
    assert found is not None
    return found


def bootstrap(session: Session, now: datetime, settings: Settings, installation: Installation) -> dict[str, Any] | None:
    """Create users, projects, catalog, flavors and the default network if missing. Returns the contents of clouds.yaml
    on the first run, else None."""
    import identity_api.directory.bootstrap
    import network_api.resources.bootstrap
    from compute_api.flavors import flavors

    made = identity_api.directory.bootstrap.bootstrap(session, now, settings)
    network_api.resources.bootstrap.bootstrap(
        session,
        now,
        admin_project_id=made.admin_project_id,
        prefix=IPv6Network(installation.prefix),
        vni_base=installation.vni_base,
        mtu=installation.mtu,
    )
    flavors.ensure_defaults(session)
    if made.passwords is None:
        return None
    return {
        "clouds": {
            "sixstack": _cloud(settings, "demo", made.passwords["demo"]),
            "sixstack-admin": _cloud(settings, "admin", made.passwords["admin"]),
        }
    }


def write_clouds(settings: Settings, clouds: dict[str, Any]) -> None:
    """Write clouds.yaml with mode 0600."""
    path = settings.state / "clouds.yaml"
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(clouds, file, sort_keys=False)
    temporary.rename(path)


def refresh_clouds(settings: Settings) -> None:
    """Update the auth URLs in clouds.yaml to the current address; passwords stay."""
    path = settings.state / "clouds.yaml"
    if not path.exists():
        return
    clouds = yaml.safe_load(path.read_text())
    for cloud in clouds["clouds"].values():
        cloud["auth"]["auth_url"] = _auth_url(settings)
    write_clouds(settings, clouds)


def _cloud(settings: Settings, name: str, password: str) -> dict[str, Any]:
    return {
        "auth": {
            "auth_url": _auth_url(settings),
            "username": name,
            "password": password,
            "project_name": name,
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        "region_name": settings.region,
        "identity_api_version": 3,
    }


def _auth_url(settings: Settings) -> str:
    if settings.public_url:
        return f"{settings.public_url.rstrip('/')}/identity/v3"
    host, port = settings.address
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1" if "." in host else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/identity/v3"


def _migrations() -> Path:
    import migrations

    return Path(migrations.__path__[0])


if __name__ == "__main__":
    sys.exit(main())
