"""Interfaces that are plugged into a running machine, and out of it.

Every interface sits in a slot of its own, a PCIe root port that is there from the start. Which port is in which slot is
written down before anything is done, so that whoever comes after a crash knows what was wanted.
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
    """Slots of a machine that starts, by port. Raises HypervisorError when there are too many interfaces."""
    if len(nics) > SLOTS:
        raise HypervisorError(f"A machine has at most {SLOTS} interfaces, {len(nics)} are wanted.")
    return {nic.port_id: number for number, nic in enumerate(nics)}


def extend_slots(control: Path, slots: Mapping[str, int], nics: tuple[NicSpec, ...]) -> dict[str, int]:
    """The slots with those for new interfaces; those of interfaces to be unplugged are still in it.

    Raises HypervisorError when none is free.
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
    """The interfaces in these slots reach nothing any more; a guest that obeys does not see them either."""

    async def converse(client: QMPClient) -> None:
        for number in slots:
            await _execute_unless_missing(client, "device_del", {"id": nic_name(number)})
            await _execute_unless_missing(client, "netdev_del", {"id": f"net{number}"})

    qmp.run_session(control, converse)


def plug(control: Path, links: Links, slots: Mapping[str, int], nics: tuple[NicSpec, ...], owner: int) -> None:
    """These interfaces are plugged in; one that is already is left alone."""
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
    """Content when it is gone, or on its way."""
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        if not any(word in str(error).lower() for word in ("not found", "already in the process", "in unplug")):
            raise
