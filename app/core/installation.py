"""Installation: the state directory and the values chosen at its creation. Imports little: the supervisor uses it."""

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
"""Segments of one installation."""
VXLAN_OVERHEAD = 70
"""Bytes that VXLAN over IPv6 adds to each frame."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Values that are chosen once, so that installations on one computer do not collide.

    `id` is four hex digits, used in names of network links. `prefix` is the IPv6 prefix that networks get a /64 of.
    """

    id: str
    prefix: str
    vni_base: int
    mtu: int


def prepare(settings: Settings) -> Installation:
    """Create the state directory and installation.json if missing; return the installation. Raises OperatorError."""
    state = settings.state
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
    except OSError as error:
        raise OperatorError(
            f"The state directory {state} cannot be created: {error.strerror}. Choose another --state."
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
            f"This installation uses the prefix {installation.prefix}, chosen when it was created; --prefix cannot "
            "change it."
        )
    return installation


def load(settings: Settings) -> Installation:
    """Read installation.json. Raises OperatorError when it is missing."""
    try:
        return Installation(**json.loads(_path(settings).read_text()))
    except FileNotFoundError:
        raise OperatorError(f"There is no Sixstack in {settings.state}. Start one with `sixstack up`.") from None


def _ensure_api_directory(state: Path) -> None:
    """Create the API's directory and move the database of an earlier release into it.

    Hard links name the same files in both places until the new directory is complete, so an interruption at any point
    is safe.
    """
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
        raise OperatorError("--prefix must be a prefix between /16 and /64: each network gets a /64 of it.")
    return prefix


def _link_mtu(name: str) -> int:
    try:
        return int(Path(f"/sys/class/net/{name}/mtu").read_text())
    except OSError:
        raise OperatorError(f"There is no network link {name}: --uplink must be a name that `ip link` shows.") from None
