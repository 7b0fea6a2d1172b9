"""The destination of a migration: a qemu that awaits disks and memory over TLS, and whether a guest has come.

It is started with `-incoming defer`. When it has received everything it lets the guest go on at once, by itself:
nobody has to ask anybody while the guest stands still. One that has not received everything never runs.
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


def listen(
    control: Path, address: IPv6Address, ports: range, disks: Mapping[str, str], *, memory: bool
) -> tuple[Port, Port | None]:
    """Await the disks (name → node), and memory if wanted; returns the ports.

    Raises HypervisorError when none is free.
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
    """Whether the guest is here, complete. One that `is_expected` has been sent and may still be read by qemu."""

    deadline = time.monotonic() + (ARRIVAL_SECONDS if is_expected else 0)

    async def converse(client: QMPClient) -> bool:
        while True:
            status: Any = await client.execute("query-status")
            if status["status"] != "inmigrate":
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)

    try:
        return qmp.run_session(control, converse, timeout_seconds=ARRIVAL_SECONDS + 10)
    except qmp.QmpUnavailable:
        return False


def close_listeners(control: Path) -> None:
    """Nobody can send disks any more."""

    async def converse(client: QMPClient) -> None:
        with contextlib.suppress(ExecuteError):  # it was stopped before
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
    """Some other migration, or somebody else, may have any of them."""
    for port in random.sample(ports, len(ports)):
        try:
            await listen_on(port)
        except ExecuteError as error:
            if "in use" not in str(error):
                raise
        else:
            return port
    raise HypervisorError(f"All ports for migrations are taken ({ports.start}-{ports.stop - 1}).")
