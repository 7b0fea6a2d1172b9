"""An installation: its state directory, what was chosen once for it, its tables brought up to date, its first users."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy.orm import Session

from app.db import Database
from app.errors import OperatorError
from app.settings import Settings

VNI_RANGE = 4096
"""How many segments one installation may have."""
VXLAN_OVERHEAD = 70
"""Bytes that VXLAN over IPv6 adds to each frame."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What is chosen once and then kept: names and numbers that no other installation on the machine uses.

    `id` is four hex digits that go into the names of links. `prefix` is where networks get their /64 from.
    """

    id: str
    prefix: str
    vni_base: int
    mtu: int


def prepare(settings: Settings) -> Installation:
    """Make the state directory if there is none, and choose what is chosen once. Raises OperatorError."""
    state = settings.state
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
    except OSError as error:
        raise OperatorError(
            f"The state directory {state} cannot be made: {error.strerror}. Choose another --state."
        ) from None
    path = _path(settings)
    if not path.exists():
        chosen = Installation(
            id=secrets.token_hex(2),
            prefix=str(_prefix(settings)),
            vni_base=VNI_RANGE * secrets.randbelow(2**24 // VNI_RANGE - 1) + VNI_RANGE,
            mtu=min(_link_mtu(settings.uplink), 1500) - VXLAN_OVERHEAD,
        )
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(chosen), indent=2) + "\n")
        temporary.rename(path)
    installation = load(settings)
    if settings.prefix and IPv6Network(installation.prefix) != _prefix(settings):
        raise OperatorError(
            f"This installation uses the prefix {installation.prefix}, chosen when it was made; --prefix cannot "
            "change it."
        )
    return installation


def load(settings: Settings) -> Installation:
    """What was chosen. Raises OperatorError when there is no installation here."""
    try:
        return Installation(**json.loads(_path(settings).read_text()))
    except FileNotFoundError:
        raise OperatorError(f"There is no Sixstack in {settings.state}. Start one with `sixstack up`.") from None


def migrate(database: Database) -> None:
    """Bring the tables up to date."""
    from alembic.migration import MigrationContext

    with database.writer.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
    if current == head():
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    with database.writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def head() -> str:
    """The newest revision there is."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    found = ScriptDirectory.from_config(config).get_current_head()
    assert found is not None
    return found


def bootstrap(session: Session, now: datetime, settings: Settings, installation: Installation) -> dict[str, Any] | None:
    """Users, projects, catalog, flavors and the default network. Returns the contents of clouds.yaml the first time."""
    import identity_api.bootstrap
    import network_api.bootstrap
    from compute_api import flavors

    made = identity_api.bootstrap.bootstrap(session, now, settings)
    network_api.bootstrap.bootstrap(
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
    """Let clouds.yaml say where the cloud listens now; its passwords stay."""
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


def _path(settings: Settings) -> Path:
    return settings.state / "installation.json"


def _migrations() -> Path:
    import migrations

    return Path(migrations.__path__[0])


def _prefix(settings: Settings) -> IPv6Network:
    if settings.prefix is None:
        return IPv6Network((0xFD << 120 | secrets.randbits(40) << 80, 48))
    try:
        prefix = IPv6Network(settings.prefix)
    except ValueError as error:
        raise OperatorError(f"--prefix: {error}.") from None
    if not 16 <= prefix.prefixlen <= 64:
        raise OperatorError("--prefix wants a prefix of /64 or shorter, as each network takes a /64 of it.")
    return prefix


def _link_mtu(name: str) -> int:
    try:
        return int(Path(f"/sys/class/net/{name}/mtu").read_text())
    except OSError:
        raise OperatorError(
            f"There is no link {name}; --uplink wants the name of one, as `ip link` shows it."
        ) from None
