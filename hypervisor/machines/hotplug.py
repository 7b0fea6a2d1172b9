"""Hotplug and unplug of network interfaces.

Each interface has its own slot, a PCIe root port created at launch. The assignment of ports to slots is stored before
qemu is changed, so that a retry after a crash uses the same slots.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient

from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import NicSpec
from hypervisor.network.links import Links
from hypervisor.qemu import qmp
from hypervisor.qemu.command import SLOTS, nic_device, nic_name, nic_netdev


def assign_slots(nics: tuple[NicSpec, ...]) -> dict[str, int]:
    """Assign a slot to each port of a new qemu. Raises HypervisorError when there are too many interfaces."""
    if len(nics) > SLOTS:
        raise HypervisorError(f"A machine has at most {SLOTS} interfaces, {len(nics)} are requested.")
    return {nic.port_id: number for number, nic in enumerate(nics)}


def extend_slots(control: Path, slots: Mapping[str, int], nics: tuple[NicSpec, ...]) -> dict[str, int]:
    """Return the slots with those of new interfaces added; interfaces to be unplugged keep theirs.

    Raises HypervisorError when no slot is free.
    """
    present = qmp.run_session(control, _list_devices)
    taken = set(slots.values()) | {number for number in range(SLOTS) if nic_name(number) in present}
    free = [number for number in range(SLOTS) if number not in taken]
    chosen = dict(slots)
    for nic in nics:
        if nic.port_id not in chosen:
            if not free:
                raise HypervisorError(f"There is no room for another interface: a machine has at most {SLOTS}.")
            chosen[nic.port_id] = free.pop(0)
    return chosen


def unplug(control: Path, slots: list[int]) -> None:
    """Disconnect the interfaces in these slots and request their unplug from the guest."""

    async def converse(client: QMPClient) -> None:
        for number in slots:
            await _execute_unless_missing(client, "device_del", {"id": nic_name(number)})
            await _execute_unless_missing(client, "netdev_del", {"id": f"net{number}"})

    qmp.run_session(control, converse)


def plug(control: Path, links: Links, slots: Mapping[str, int], nics: tuple[NicSpec, ...], owner: int) -> None:
    """Plug in the interfaces that are not plugged in yet."""
    present = qmp.run_session(control, _list_devices)
    for nic in nics:
        number = slots[nic.port_id]
        if nic_name(number) not in present:
            tap = links.open_tap(nic, owner)
            try:
                qmp.run_session(control, partial(_plug, nic=nic, number=number, tap=tap))
            finally:
                os.close(tap)


async def _plug(client: QMPClient, nic: NicSpec, number: int, tap: int) -> None:
    await _execute_unless_missing(client, "netdev_del", {"id": f"net{number}"})
    client.send_fd_scm(tap)
    await client.execute("getfd", {"fdname": f"tap{number}"})
    await client.execute("netdev_add", nic_netdev(number, f"tap{number}"))
    try:
        await client.execute("device_add", nic_device(number, nic))
    except ExecuteError:
        await _execute_unless_missing(client, "netdev_del", {"id": f"net{number}"})
        raise


async def _list_devices(client: QMPClient) -> set[str]:
    devices: Any = await client.execute("qom-list", {"path": "/machine/peripheral"})
    return {device["name"] for device in devices}


async def _execute_unless_missing(client: QMPClient, command: str, arguments: dict[str, object]) -> None:
    """Ignore errors for devices that are missing or being unplugged."""
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        if not any(word in str(error).lower() for word in ("not found", "already in the process", "in unplug")):
            raise
