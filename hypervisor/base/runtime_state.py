"""Runtime state of a machine: properties of its qemu process that survive restarts of the agent."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from hypervisor.base.paths import MachinePaths, write


@dataclass(frozen=True)
class RuntimeState:
    """Properties of one qemu process: accelerator, start time, PCIe slot of each port, machine type, and whether the
    machine has consoles."""

    accelerator: str | None
    started_at: datetime
    slots: dict[str, int]
    machine_type: str = "q35"
    consoles: bool = False

    def save(self, paths: MachinePaths) -> None:
        """Write the state of the machine's current qemu process."""
        write(paths.runtime_state, json.dumps({**asdict(self), "started_at": self.started_at.timestamp()}).encode())


def load_runtime_state(paths: MachinePaths) -> RuntimeState:
    """Read the state of the current or last qemu process; defaults when there is none."""
    try:
        document = json.loads(paths.runtime_state.read_bytes())
        started_at = datetime.fromtimestamp(document["started_at"], UTC)
        slots, machine_type = document.get("slots", {}), document.get("machine_type", "q35")
        return RuntimeState(document["accelerator"], started_at, slots, machine_type, document.get("consoles", False))
    except (FileNotFoundError, ValueError, KeyError):
        return RuntimeState(None, datetime.fromtimestamp(0, UTC), {})
