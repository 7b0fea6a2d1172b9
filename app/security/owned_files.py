"""Files that root creates in directories of another user, such as the API's, with the owner of the directory."""

import os
from pathlib import Path


def inherit_owner(descriptor: int, directory: Path) -> None:
    """Change the owner of a newly created file to the owner of its directory; does nothing unless root."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def open_or_create(path: Path, mode: int = 0o600) -> int:
    """Open a file for reading and writing, creating it if missing. Follows no symbolic link."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            try:
                return os.open(path, flags)
            except FileNotFoundError:
                continue
        inherit_owner(descriptor, path.parent)
        return descriptor


def ensure_directory(path: Path) -> None:
    """Ensure a directory of mode 0700 with the owner of its parent."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
