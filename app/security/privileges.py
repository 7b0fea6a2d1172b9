"""Privilege separation: runs API, console proxy, DNS sync and conductor under an unprivileged account.

Applies when `sixstack up` starts as root; the supervisor and the agent stay root. The account is an unused uid derived
from the installation's id, or the user of the setting `user`. It owns `api_directories` and can only traverse the rest.
"""

import compileall
import functools
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import app
from app.core.errors import OperatorError
from app.core.installation import Installation
from app.core.settings import Settings

# Above the uids of machines and of qemu-img (hypervisor/machines/launch.py, hypervisor/storage/qemu_img.py).
FIRST_UID = 0x7FE0_0000
PACKAGES = (
    "app",
    "compute_agent",
    "compute_api",
    "hypervisor",
    "identity_api",
    "image_api",
    "network_api",
    "volume_api",
)
READ_FILES = ("installation.json", "policy.yaml")
"""Files in the state directory that root owns and the account reads."""
PRIVILEGED_PORTS = 1024

# Directories that the account cannot traverse, such as /root with a checkout in it, are replaced in a mount namespace
# by ones that contain only the necessary paths. Arguments: HIDDEN COUNT PATH… HIDDEN COUNT PATH… -- COMMAND…
_CONFINE_SCRIPT = """
mask=$(umask)
umask 022
while [ "$1" != -- ]; do
    hidden=$1 count=$2
    shift 2
    exec 9<"$hidden"
    mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev tmpfs "$hidden"
    while [ "$count" -gt 0 ]; do
        mkdir -p "$hidden/$1"
        mount -c --rbind "/proc/self/fd/9/$1" "$hidden/$1"
        count=$((count - 1))
        shift
    done
    exec 9<&-
done
shift
umask "$mask"
exec "$@"
"""


@dataclass(frozen=True)
class Account:
    """Numeric user and group; `name` is set for an existing user, whose supplementary groups are used as well."""

    uid: int
    gid: int
    name: str | None = None

    def command(self, *, port: int | None = None) -> list[str]:
        """Return the setpriv command prefix that drops to this account and all capabilities, except
        CAP_NET_BIND_SERVICE for a privileged `port`."""
        kept = ",+net_bind_service" if port is not None and port < PRIVILEGED_PORTS else ""
        return [
            *("setpriv", "--reuid", str(self.uid), "--regid", str(self.gid)),
            *(("--init-groups",) if self.name else ("--clear-groups",)),
            *("--no-new-privs", f"--bounding-set=-all{kept}", f"--inh-caps=-all{kept}"),
            *((f"--ambient-caps=-all{kept}",) if kept else ()),
            "--",
        ]


def account(settings: Settings, chosen: Installation) -> Account | None:
    """Return the account of this installation; None when processes keep their user. Raises OperatorError."""
    if os.geteuid() != 0 or settings.user == "root":
        return None
    if not settings.user:
        number = FIRST_UID + int(chosen.id, 16)
        return Account(number, number)
    try:
        found = pwd.getpwnam(settings.user)
    except KeyError:
        raise OperatorError(
            f"There is no user {settings.user}. Create it (useradd --system {settings.user}) or leave out --user."
        ) from None
    return Account(found.pw_uid, found.pw_gid, found.pw_name)


def api_directories(settings: Settings) -> tuple[str, ...]:
    """Return the account's directories relative to the state directory: database and run-time files, token keys, and
    the image store unless images are in object storage."""
    return ("api", "keys") if settings.image_store else ("api", "keys", "images/store")


def change_owners(settings: Settings, who: Account | None) -> None:
    """Change the owner of the account's directories, with the files of earlier releases or accounts; idempotent.

    Call it as root while nothing else runs; does nothing otherwise. Raises OperatorError.
    """
    if os.geteuid() != 0:
        return
    owner = who or Account(0, 0)
    state = settings.state
    try:
        os.chown(state, -1, owner.gid)
        state.chmod(0o710 if who else 0o700)
        (state / "images").mkdir(mode=0o711, exist_ok=True)
        (state / "images").chmod(0o711)
        (state / "machines").mkdir(mode=0o700, exist_ok=True)
        (state / "machines").chmod(0o700)
        for name in api_directories(settings):
            _chown_tree(state / name, owner)
        for name in READ_FILES:
            if (state / name).exists():
                os.chown(state / name, -1, owner.gid)
                (state / name).chmod(0o640)
    except OSError as error:
        raise OperatorError(
            f"the owner of {error.filename or state} cannot be changed to {owner.uid}: {error.strerror}. Use a file "
            "system that supports owners for the state directory, or run everything as root with --user root."
        ) from None


def copy_root_files(settings: Settings, who: Account) -> dict[str, str]:
    """Copy files that only root can read for the account. Returns the SIXSTACK_* variables that name the copies."""
    named = {"dns_key_file": settings.dns_key_file, "broker_authority": settings.broker_authority}
    changed = {}
    for name, path in named.items():
        copy = settings.api_directory.absolute() / name
        copy.unlink(missing_ok=True)
        if not path:
            continue
        try:
            content = Path(path).read_bytes()
        except OSError:
            continue  # the process that needs the file reports it
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), who.uid, who.gid)
        changed[f"SIXSTACK_{name.upper()}"] = str(copy)
    return changed


def compile_bytecode() -> None:
    """Compile our modules' bytecode if missing or stale: the account cannot write it, so each of its processes would
    compile the modules again."""
    top = Path(app.__file__).parents[1]
    for name in PACKAGES:
        compileall.compile_dir(top / name, quiet=2)


def command(settings: Settings, who: Account, words: list[str], *, port: int | None = None) -> list[str]:
    """Return the command line that runs the Python command `words` as the account."""
    confined = list(_confine_arguments(settings, who))
    unshare = ["unshare", "--mount", "--propagation", "private", "--"]
    before = [*unshare, "sh", "-euc", _CONFINE_SCRIPT, "sh", *confined, "--"]
    return [*(before if confined else ()), *who.command(port=port), *words]


def check(settings: Settings, who: Account, environment: dict[str, str]) -> None:
    """Raise OperatorError when the account cannot import our modules or read its directory."""
    look = "import os, sys, app.core.settings; os.listdir(sys.argv[1])"
    words = [sys.executable, "-c", look, str(settings.api_directory.absolute())]
    done = subprocess.run(
        command(settings, who, words), env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OperatorError(
            f"the API cannot run as the user {who.name or who.uid}: {reason}. Give that user read access to "
            f"{sys.prefix} and {settings.state}, or run everything as root with --user root."
        )


def _confine_arguments(settings: Settings, who: Account) -> Iterator[str]:
    """Arguments of _CONFINE_SCRIPT: each hidden directory with the number and paths of entries needed below it."""
    state = settings.state.absolute()
    needed = [Path(each) for each in (*sys.path, sys.prefix, sys.base_prefix) if each and Path(each).is_dir()]
    needed += [Path(sys.executable).parent, Path(sys.executable).resolve().parent, state]
    needed += [state / name for name in api_directories(settings)]
    below: dict[Path, set[Path]] = {}
    for path in {each for one in needed for each in (one.absolute(), one.resolve())}:
        hidden = next((up for up in reversed(path.parents) if not _may_traverse(up, who)), None)
        if hidden is not None:
            below.setdefault(hidden.resolve(), set()).add(hidden.resolve() / path.relative_to(hidden))
    for hidden, paths in sorted(below.items()):
        outermost = [path for path in sorted(paths) if not any(up in paths for up in path.parents)]
        yield from (str(hidden), str(len(outermost)), *(str(path.relative_to(hidden)) for path in outermost))


@functools.cache
def _may_traverse(directory: Path, who: Account) -> bool:
    found = directory.stat()
    if found.st_uid == who.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    groups = {who.gid, *(os.getgrouplist(who.name, who.gid) if who.name else ())}
    return bool(found.st_mode & (stat.S_IXGRP if found.st_gid in groups else stat.S_IXOTH))


def _chown_tree(directory: Path, owner: Account) -> None:
    """Change the owner of a directory and its contents; the directory itself comes last.

    A directory that already has the owner may contain links that the owner made: there only files directly in it that
    root has written since, such as with an older release, are changed.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid == owner.uid:
        for path in directory.iterdir():
            if path.lstat().st_uid != owner.uid:
                _chown_file(path, owner)
        return
    for path in _entries(directory):
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    os.chown(directory, owner.uid, owner.gid)
    directory.chmod(0o700)


def _entries(directory: Path) -> Iterable[Path]:
    for root, directories, files in os.walk(directory, topdown=False):
        yield from (Path(root) / name for name in (*files, *directories))


def _chown_file(path: Path, owner: Account) -> None:
    """Change the owner of a regular file with one link: a file with several may be a hard link to root's elsewhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid != owner.uid:
            os.fchown(descriptor, owner.uid, owner.gid)
    finally:
        os.close(descriptor)
