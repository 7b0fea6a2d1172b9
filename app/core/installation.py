"""An installation: its state directory, and what was chosen once for it. Loads nothing heavy, as `up` stays small."""

import json
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv6Network
from pathlib import Path

from app.core.errors import OperatorError
from app.core.settings import DATABASE, DATABASE_SUFFIXES, Settings

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
    _ensure_api_directory(state)
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


def _ensure_api_directory(state: Path) -> None:
    """Make the API's directory, with the database of a release that kept it beside. Both paths name the same files
    until the new directory is complete, so this may be interrupted at any point."""
    directory, temporary = state / "api", state / ".api"
    old = [state / f"{DATABASE}{suffix}" for suffix in DATABASE_SUFFIXES]
    if not directory.exists():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        for path in old:
            if path.exists():
                os.link(path, temporary / path.name)
        temporary.rename(directory)
    for path in old:
        with suppress(FileNotFoundError):
            if path.samefile(directory / path.name):
                path.unlink()
    for name in ("consoles.port", "dns.json"):
        (state / name).unlink(missing_ok=True)


def _path(settings: Settings) -> Path:
    return settings.state / "installation.json"


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
