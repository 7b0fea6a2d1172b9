"""Privilege separation: directories of the account, migration from earlier releases, the command that drops root."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core import installation
from app.core.errors import OperatorError
from app.core.installation import Installation
from app.core.settings import Settings
from app.security import privileges
from app.security.privileges import Account

CHOSEN = Installation(id="0abc", prefix="fd00::/48", vni_base=4096, mtu=1430)
WHO = Account(0x7FE0_0ABC, 0x7FE0_0ABC)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up privileges")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    state = tmp_path / "state"
    state.mkdir()
    (state / "installation.json").write_text(
        json.dumps({"id": CHOSEN.id, "prefix": CHOSEN.prefix, "vni_base": CHOSEN.vni_base, "mtu": CHOSEN.mtu})
    )
    return Settings(state=state)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def uid(path: Path) -> int:
    return path.lstat().st_uid


def old_database(settings: Settings) -> dict[str, bytes]:
    content = {f"sixstack.db{suffix}": suffix.encode() for suffix in ("", "-wal", "-shm", ".lock")}
    for name, each in content.items():
        (settings.state / name).write_bytes(each)
    return content


def test_the_database_of_an_earlier_release_is_moved_and_found(settings: Settings) -> None:
    content = old_database(settings)
    assert Path(settings.database.removeprefix("sqlite:///")).parent == settings.state
    for _ in range(2):
        installation.prepare(settings)
        assert {path.name: path.read_bytes() for path in (settings.state / "api").iterdir()} == content
        assert list(settings.state.glob("sixstack.db*")) == []
        assert Path(settings.database.removeprefix("sqlite:///")).parent == settings.state / "api"


def test_interrupted_move_is_completed(settings: Settings) -> None:
    content = old_database(settings)
    (settings.state / ".api").mkdir()
    os.link(settings.state / "sixstack.db", settings.state / ".api" / "sixstack.db")
    assert Path(settings.database.removeprefix("sqlite:///")).parent == settings.state
    installation.prepare(settings)
    os.link(settings.state / "api" / "sixstack.db-wal", settings.state / "sixstack.db-wal")
    installation.prepare(settings)
    assert {path.name: path.read_bytes() for path in (settings.state / "api").iterdir()} == content
    assert list(settings.state.glob("sixstack.db*")) == []


@needs_root
def test_owner_of_root_files_is_changed_once(settings: Settings, tmp_path: Path) -> None:
    old_database(settings)
    installation.prepare(settings)
    store, secret = settings.state / "images/store", tmp_path / "secret"
    store.mkdir(parents=True)
    (store / "image").write_bytes(b"disk")
    secret.write_bytes(b"secret")
    (store / "link").symlink_to(secret)
    privileges.change_owners(settings, WHO)
    directories = [settings.state / name for name in privileges.api_directories(settings)]
    assert {uid(path) for directory in directories for path in directory.rglob("*")} == {WHO.uid}
    assert {uid(path) for path in (settings.state, settings.state / "machines", secret)} == {0}
    assert settings.state.stat().st_mode & 0o777 == 0o710
    assert (settings.state / "machines").stat().st_mode & 0o777 == 0o700

    os.link(secret, store / "planted")
    (settings.state / "api" / "sixstack.db-journal").symlink_to(secret)
    (store / "late").write_bytes(b"written by root since")
    privileges.change_owners(settings, WHO)
    assert uid(secret) == 0, "hard links planted by the account keep their owner"
    assert uid(store / "late") == WHO.uid

    privileges.change_owners(settings, None)
    assert uid(settings.state / "api" / "sixstack.db") == 0
    assert settings.state.stat().st_mode & 0o777 == 0o700


@needs_root
def test_object_storage_needs_no_local_image_store(settings: Settings) -> None:
    settings = replace(settings, image_store="s3://images")
    privileges.change_owners(settings, WHO)
    assert not (settings.state / "images/store").exists()
    assert uid(settings.state / "keys") == WHO.uid


@needs_root
def test_the_account_is_a_uid_of_the_installation_or_a_named_user(settings: Settings) -> None:
    assert privileges.account(settings, CHOSEN) == WHO
    assert privileges.account(Settings(user="root"), CHOSEN) is None
    named = privileges.account(Settings(user="nobody"), CHOSEN)
    assert named is not None
    assert (named.uid, named.name) == (65534, "nobody")
    with pytest.raises(OperatorError, match="There is no user nosuch"):
        privileges.account(Settings(user="nosuch"), CHOSEN)


@needs_root
@pytest.mark.parametrize("is_hidden", [False, True])
def test_account_reaches_only_the_directories_it_needs(reachable: Path, is_hidden: bool) -> None:
    home = reachable / "home"
    (home / "state").mkdir(parents=True)
    (home / "secret").write_text("secret")
    settings = Settings(state=home / "state")
    chosen = installation.prepare(settings)
    who = privileges.account(settings, chosen)
    assert who is not None
    privileges.change_owners(settings, who)
    home.chmod(0o700 if is_hidden else 0o711)
    (home / "secret").chmod(0o600)
    privileges._may_traverse.cache_clear()
    privileges.check(settings, who, dict(os.environ))
    look = (
        "import os, sys; os.listdir(sys.argv[1]); print(os.getuid(), os.umask(0));"
        "print(os.path.exists(sys.argv[2]) and open(sys.argv[2]).read())"
    )
    words = [sys.executable, "-c", look, str(home / "state/api"), str(home / "secret")]
    seen = subprocess.run(privileges.command(settings, who, words), capture_output=True, text=True)
    assert seen.stdout.split()[0] == str(who.uid)
    assert "secret" not in seen.stdout
    assert (home / "secret").read_text() == "secret", "the caller's own view is unchanged"


@needs_root
def test_files_readable_only_by_root_are_copied_for_the_account(settings: Settings, tmp_path: Path) -> None:
    installation.prepare(settings)
    privileges.change_owners(settings, WHO)
    key = tmp_path / "dns.key"
    key.write_text("key")
    with_key = Settings(state=settings.state, dns_key_file=key)
    for _ in range(2):
        told = privileges.copy_root_files(with_key, WHO)
        copy = Path(told["SIXSTACK_DNS_KEY_FILE"])
        assert (copy.read_text(), uid(copy), copy.stat().st_mode & 0o777) == ("key", WHO.uid, 0o600)
    assert privileges.copy_root_files(settings, WHO) == {}
    assert not copy.exists()


def test_only_a_privileged_port_keeps_a_capability() -> None:
    assert not any("net_bind_service" in word for word in WHO.command(port=8774))
    assert "--ambient-caps=-all,+net_bind_service" in WHO.command(port=443)
