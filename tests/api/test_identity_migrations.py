"""Migrations of identity that change rows of existing installations."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select

from app import bootstrap
from app.core.settings import Settings
from app.db.database import Database
from identity_api.directory import bootstrap as identity_bootstrap
from identity_api.models import CatalogService, Endpoint


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Database of an installation whose catalog lacks volumev3 and volume."""
    monkeypatch.setattr(identity_bootstrap, "SERVICES", identity_bootstrap.SERVICES[:-2])
    database = Database(f"sqlite:///{tmp_path}/old.db")
    bootstrap.migrate(database)
    with database.transaction() as session:
        identity_bootstrap.bootstrap(session, datetime.now(UTC), Settings(state=tmp_path))
    with database.writer.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
        config.attributes["connection"] = connection
        command.downgrade(config, "0014_past_servers")
    return database


@pytest.mark.parametrize("kind", ["volumev3", "volume"])
def test_existing_catalogs_get_volume_aliases(old: Database, kind: str) -> None:
    for _ in range(2):
        bootstrap.migrate(old)
        with old.reading() as session:
            query = select(Endpoint.url, Endpoint.interface).join(
                CatalogService, CatalogService.id == Endpoint.service_id
            )
            found = {(*row,) for row in session.execute(query.where(CatalogService.type == kind))}
        assert found == {("/volume/v3", interface) for interface in ("public", "internal", "admin")}
    old.dispose()
