"""One-time TLS-PSK credentials for migrations: stored in a file while qemu needs them, never in a command line.

qemu reads the key from a file in a directory given by path. It has no access to the machine's directory, so the path
refers to an inherited descriptor of the key's directory (/proc/self/fd).
"""

import os
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from hypervisor.base.paths import private_directory, remove_directory

OBJECT = "migration-tls"
USER = "sixstack"


def write_key(directory: Path, key: str) -> None:
    """Write the key file that qemu reads. World-readable: the parent directory (0700) protects it."""
    private_directory(directory)
    file = directory / "keys.psk"
    file.write_text(f"{USER}:{key}\n")
    file.chmod(0o444)
    directory.chmod(0o755)


def remove_key(directory: Path) -> None:
    """Remove the directory of the key, if it exists."""
    remove_directory(directory)


def server_credentials(descriptor: int) -> dict[str, Any]:
    """Build the credentials object of the migration target; qemu reads the key when a client connects."""
    return {"qom-type": "tls-creds-psk", "id": OBJECT, "dir": f"/proc/self/fd/{descriptor}", "endpoint": "server"}


async def add_client_credentials(client: QMPClient, directory: Path) -> None:
    """Add the client credentials to a running migration source; qemu reads the key immediately."""
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
