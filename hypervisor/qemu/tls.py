"""One-time keys for TLS between two qemus: in a file just as long as qemu needs it, never in a command line.

qemu reads such a key from a file in a directory that it is told by name. It has no right to look into the machine's
directory, so it gets a descriptor of this one and finds the file through that.
"""

import os
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from hypervisor.base.paths import private_directory, remove_directory

OBJECT = "migration-tls"
USER = "sixstack"


def write_key(directory: Path, key: str) -> None:
    """Put the key where a qemu that is handed the directory finds it. The directory above keeps others out."""
    private_directory(directory)
    file = directory / "keys.psk"
    file.write_text(f"{USER}:{key}\n")
    file.chmod(0o444)
    directory.chmod(0o755)


def remove_key(directory: Path) -> None:
    """Content when it is gone."""
    remove_directory(directory)


def server_credentials(descriptor: int) -> dict[str, Any]:
    """The object of a qemu that awaits another one; it reads the key when somebody comes."""
    return {"qom-type": "tls-creds-psk", "id": OBJECT, "dir": f"/proc/self/fd/{descriptor}", "endpoint": "server"}


async def add_client_credentials(client: QMPClient, directory: Path) -> None:
    """Give a running qemu the key by which it is let in elsewhere; it reads it at once."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client.send_fd_scm(descriptor)
        added: Any = await client.execute("add-fd", {"opaque": OBJECT})
    finally:
        os.close(descriptor)
    try:
        where = {"dir": f"/proc/self/fd/{added['fd']}", "endpoint": "client", "username": USER}
        await client.execute("object-add", {"qom-type": "tls-creds-psk", "id": OBJECT, **where})
    finally:
        await client.execute("remove-fd", {"fdset-id": added["fdset-id"]})
