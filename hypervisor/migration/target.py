"""Migration target: a qemu that receives disks and memory over TLS.

It is started with `-incoming defer`. It resumes the guest as soon as it has received everything, without a command from
the control plane, which keeps the downtime short. A guest that is not completely received never runs.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient

from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import Port
from hypervisor.qemu import qmp, tls

ARRIVAL_SECONDS = 120.0
RETRY_SECONDS = 0.1


def listen(
    control: Path, address: IPv6Address, ports: range, disks: Mapping[str, str], *, memory: bool
) -> tuple[Port, Port | None]:
    """Listen for the disks (export name → node), and for memory if `memory`; return the ports.

    Raises HypervisorError when no port is free.
    """

    async def converse(client: QMPClient) -> tuple[int, int | None]:
        await client.execute("migrate-set-parameters", {"tls-creds": tls.OBJECT})
        disk_port = await _try_ports(ports, lambda port: _serve_disks(client, address, port))
        for name, node in disks.items():
            export = {"type": "nbd", "id": f"export-{node}", "node-name": node, "name": name, "writable": True}
            await client.execute("block-export-add", export)
        if not memory:
            return disk_port, None
        return disk_port, await _try_ports(ports, lambda port: _listen_for_memory(client, address, port))

    return qmp.run_session(control, converse, timeout_seconds=60)


def has_received_guest(control: Path, *, is_expected: bool) -> bool:
    """Whether the guest is completely received. Waits for a guest that `is_expected`: qemu may still read it.

    A session that fails proves nothing while qemu listens: the guest would be lost if the target were removed then.
    """
    deadline = time.monotonic() + (ARRIVAL_SECONDS if is_expected else 0)

    async def converse(client: QMPClient) -> bool:
        while True:
            status: Any = await client.execute("query-status")
            if status["status"] != "inmigrate":
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)

    while True:
        try:
            return qmp.run_session(control, converse, timeout_seconds=ARRIVAL_SECONDS + 10)
        except qmp.QmpUnavailable:
            if not qmp.is_listening(control):
                return False
            time.sleep(RETRY_SECONDS)


def close_listeners(control: Path) -> None:
    """Close the listeners for disks and memory."""

    async def converse(client: QMPClient) -> None:
        with contextlib.suppress(ExecuteError):  # stopped before
            await client.execute("nbd-server-stop")
        await client.execute("migrate-set-parameters", {"tls-creds": ""})
        with contextlib.suppress(ExecuteError):
            await client.execute("object-del", {"id": tls.OBJECT})

    qmp.run_session(control, converse, timeout_seconds=60)


async def _serve_disks(client: QMPClient, address: IPv6Address, port: int) -> None:
    where = {"type": "inet", "data": {"host": str(address), "port": str(port)}}
    await client.execute("nbd-server-start", {"addr": where, "tls-creds": tls.OBJECT})


async def _listen_for_memory(client: QMPClient, address: IPv6Address, port: int) -> None:
    await client.execute("migrate-incoming", {"uri": f"tcp:[{address}]:{port}"})


async def _try_ports(ports: range, listen_on: Any) -> int:
    """Listen on a random free port of the range; other migrations and programs may use some of them."""
    for port in random.sample(ports, len(ports)):
        try:
            await listen_on(port)
        except ExecuteError as error:
            if "in use" not in str(error):
                raise
        else:
            return port
    raise HypervisorError(f"All migration ports are in use ({ports.start}-{ports.stop - 1}).")
